"""The model `foveate` of lmms-eval: any vision-language model of Hugging Face, or the embedded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from lmms_eval.utils import simple_parse_args_string
from tqdm import tqdm
from transformers import GenerationConfig

from foveate.cli.answers import prepare_chats
from foveate.cli.models import Loaded, load
from foveate.errors import InputError
from foveate.integrations.compression import take_apart
from foveate.integrations.lmms_eval.watch import watched

__all__ = ["Foveate"]

LOADING = ("pretrained", "device", "dtype", "attn", "batch_size")
NEW_TOKENS = 1024  # where a task does not say
DEFAULT_STOP = "\n\n"  # what lmms-eval puts where a task names no stop, and its chat models ignore


class Foveate(lmms):
    """A model behind its own chat template, answering with a compressed cache.

    Takes `pretrained` (the embedded model, if not given), `device`, `dtype`, `attn`, `batch_size`;
    `method`, `keep` and the options of the method; `storage` and `quantized`. Of a task's settings,
    those that `generate` knows are used. Differs from lmms-eval: `do_sample: False` is greedy
    whatever the temperature, and a text that a task names in `until` ends the answer.
    """

    is_simple = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.compression, loading = take_apart(arguments, LOADING)
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self.batch_size = _batch_size(loading.get("batch_size", 1))
        device = str(loading.get("device", "auto"))
        if device in ("auto", "cuda") and self._world_size > 1:
            device = str(self.accelerator.device)
        loaded = load(
            loading.get("pretrained"), loading.get("dtype", "auto"), device, loading.get("attn")
        )
        self._name, self._model, self.processor = loaded.name, loaded.model, loaded.processor
        self.compression.check(self._model)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> lmms:
        """Return an instance; what the model arguments say counts before the command's options."""
        given = {k: v for k, v in (additional_config or {}).items() if v is not None}
        return cls(**{**given, **simple_parse_args_string(arg_string)})

    @property
    def model(self) -> Any:
        """Return the model of transformers."""
        return self._model

    @property
    def device(self) -> Any:
        """Return where the model is."""
        return self._model.device

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Return an answer to each request."""
        return watched(self, self.compression, self._answers, requests)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        """Raise `InputError`: what comes after a first answer is the task's own business."""
        raise InputError(
            "tasks of several rounds need a model of lmms-eval that knows them; take foveate_wrap "
            "around it"
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raise `InputError`: likelihoods read nothing from a cache."""
        self.compression.refuse_likelihoods(requests)
        raise InputError("the model foveate only generates; take foveate_wrap for likelihoods")

    def _answers(self, requests: Sequence[Any]) -> list[GenerationResult]:
        found: dict[int, GenerationResult] = {}
        with tqdm(total=len(requests), desc="Model Responding", disable=self.rank != 0) as bar:
            for places in self._batches(requests):
                answers = self._batch([requests[place].args for place in places])
                found |= zip(places, answers, strict=True)
                bar.update(len(places))
        return [found[place] for place in range(len(requests))]

    def _batches(self, requests: Sequence[Any]) -> Iterator[list[int]]:
        """Yield the places of requests that can be generated together."""
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(request.args[2]), []).append(place)
        for places in groups.values():
            for start in range(0, len(places), self.batch_size):
                yield places[start : start + self.batch_size]

    def _batch(self, batch: Sequence[tuple[Any, ...]]) -> list[GenerationResult]:
        """Return the answers to requests of equal settings, in one call of `generate`."""
        chats = []
        for _, to_messages, _, number, task, split in batch:
            messages = to_messages(self.task_dict[task][split][number])
            chats.append(ChatMessages(messages=messages).to_hf_messages())
        inputs = prepare_chats(Loaded(self._name, self._model, self.processor), chats)
        options, stops = generation(batch[0][2])
        ids = self._model.generate(**inputs, **options)
        skip = 0 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        lengths = inputs["attention_mask"].sum(-1).tolist()
        return [
            self._result(row, length, stops)
            for row, length in zip(ids[:, skip:], lengths, strict=True)
        ]

    def _result(self, row: Any, prompt: int, stops: Sequence[str]) -> GenerationResult:
        pad = self.processor.tokenizer.pad_token_id
        text = self.processor.decode(row, skip_special_tokens=True)
        for stop in stops:
            text = text.split(stop)[0]
        written = len(row) if pad is None else int((row != pad).sum())
        return GenerationResult(text, TokenCounts(input_tokens=prompt, output_tokens=written))


def generation(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of `generate` that a task's settings stand for, and texts that stop."""
    known = vars(GenerationConfig())
    options = {name: value for name, value in given.items() if name in known}
    options.setdefault("max_new_tokens", NEW_TOKENS)
    warm = (options.get("temperature") or 0) > 0
    options["do_sample"] = warm and options.get("do_sample") is not False
    if not options["do_sample"]:
        for name in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            options.pop(name, None)
    until = given.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    return options, [stop for stop in stops if stop and stop != DEFAULT_STOP]


def _batch_size(given: Any) -> int:
    try:
        size = int(given)
    except ValueError:
        size = 0
    if size < 1:
        raise InputError(f"batch_size={given!r} came; give a whole number from 1 on")
    return size
