"""How closely a compressed cache follows the full one: its words, its probabilities, its looks."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.cache.report import CacheReport
from foveate.errors import InputError
from foveate.hf.attended import attended
from foveate.hf.cache import CompressedCache
from foveate.hf.forced import Prompt, ends, forced, greedy, mask_of, padded, read, until_end
from foveate.hf.kinds import visual_ids
from foveate.hf.support import unwrap
from foveate.hf.watch import plain_cache
from foveate.method import Method

__all__ = ["Fidelities", "Fidelity", "Reference", "fidelity", "references"]

Answers = Tensor | Sequence[Sequence[int]]
LARGEST = 700.0  # nats per token; the perplexity of more is no float


@dataclass(frozen=True)
class Fidelity:
    """One answer of the full cache, and what a compressed cache makes of it.

    Of A tokens, `agreement` is the share that the compressed cache's own greedy answer has at the
    same place, `divergence` the first place where it has not, A if there is none. The others follow
    the full answer token by token, whatever the compressed cache would have said: `kl` is the mean
    over its tokens of KL(full || compressed) between the distributions that they are drawn from, in
    nats, and `perplexity` that of the answer under the compressed cache, `perplexity_full` under
    the full one. The first token comes from the prompt's pass, which nothing has left yet.

    `mass` is the share of what the full cache's queries give to the prompt while they decode the
    answer, over all query heads of the compressible layers, that falls on positions which are kept
    after the prompt; `mass_visual` is the same for visual tokens alone. Of merged tokens only the
    position that is stored counts. Where nothing can be lost the shares are 1.
    """

    agreement: float
    divergence: int
    kl: float
    perplexity: float
    perplexity_full: float
    mass: float
    mass_visual: float

    def to_dict(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Reference:
    """What the full cache does with one prompt; it serves for any number of methods."""

    answer: tuple[int, ...]
    logits: Tensor  # [A, vocabulary]
    attention: Mapping[int, Tensor]  # per compressible layer [H, T], without padding
    visual: Tensor  # [T]

    @property
    def perplexity(self) -> float:
        """Return the perplexity of the answer."""
        return perplexity(self.logits.float().log_softmax(-1), self.answer)


@torch.no_grad()
def references(
    model: Any,
    inputs: Mapping[str, Any],
    answer_ids: Answers | None = None,
    *,
    max_new_tokens: int = 32,
) -> list[Reference]:
    """Return what the full cache does with every row of a batch.

    `answer_ids` are its greedy answers, rows of ids or a tensor padded with -100; they are made
    here if they are missing.
    """
    model, mask = unwrap(model), mask_of(inputs).bool()
    if answer_ids is None:
        answers = greedy(model, inputs, plain_cache(model), max_new_tokens)
    else:
        answers = until_end(rows_of(answer_ids, len(mask)), ends(model))
    cache = plain_cache(model)
    prompt = read(model, inputs, cache)
    count = torch.tensor([max(len(answer) - 1, 1) for answer in answers], device=mask.device)
    place = torch.arange(int(count.max()), device=mask.device)
    rows = torch.where(place < count[:, None], place + mask.shape[1], -1)
    columns = torch.cat([mask, torch.ones_like(rows, dtype=torch.bool)], -1)
    with attended(model, cache, rows, columns) as found:
        logits = forced(model, cache, prompt, padded(answers, mask.device))
    ids, valid = inputs["input_ids"].cpu(), mask.cpu()
    visual = torch.isin(ids, torch.tensor(visual_ids(model.config)))
    looks = {layer: given[..., : mask.shape[1]].cpu() for layer, given in found.items()}
    return [
        Reference(
            tuple(answer),
            logits[row, : len(answer)].cpu(),
            {layer: given[row][:, valid[row]] for layer, given in looks.items()},
            visual[row, valid[row]],
        )
        for row, answer in enumerate(answers)
    ]


@torch.no_grad()
def fidelity(
    model: Any,
    inputs: Mapping[str, Any],
    method: Method,
    answer_ids: Answers | None = None,
    *,
    said_ids: Answers | None = None,
    reference: Sequence[Reference] | None = None,
    max_new_tokens: int = 32,
    storage: str = "dense",
    quantized: str | None = None,
) -> list[Fidelity]:
    """Return how closely a compressed cache follows the full one, for every row of a batch.

    `answer_ids` and `said_ids` are the greedy answers with the full and with the compressed cache;
    what is missing is made. With the `reference` of the same inputs, the full cache does nothing
    here again.
    """
    model, mask = unwrap(model), mask_of(inputs).bool()
    if reference is None:
        reference = references(model, inputs, answer_ids, max_new_tokens=max_new_tokens)
    if len(reference) != len(mask):
        raise InputError(
            f"the reference has {len(reference)} rows and the inputs have {len(mask)}; give what "
            "references() returned for these inputs"
        )
    longest = max(len(row.answer) for row in reference)

    def empty() -> CompressedCache:
        return CompressedCache(model, method, storage=storage, quantized=quantized)

    if said_ids is None:
        said = greedy(model, inputs, empty(), longest)
    else:
        said = until_end(rows_of(said_ids, len(mask)), ends(model))
    cache = empty()
    prompt = read(model, inputs, cache)
    report = cache.report()
    logits = _followed(model, cache, prompt, reference)
    return [
        _measured(one, words, logits[row], *masses(one, report, row, mask[row].cpu()))
        for row, (one, words) in enumerate(zip(reference, said, strict=True))
    ]


def _followed(
    model: Any, cache: CompressedCache, prompt: Prompt, reference: Sequence[Reference]
) -> Tensor:
    """Return a compressed cache's logits [B, A, vocabulary] along the full cache's answers."""
    answers = padded([row.answer for row in reference], prompt.mask.device)
    method = cache.method
    stepwise = method.when.follow is not None and not method.keeps_everything
    cache.expect(prompt.mask.shape[1], answers.shape[1])
    return forced(model, cache, prompt, answers, stepwise=stepwise)


def _measured(
    reference: Reference, said: Sequence[int], logits: Tensor, mass: float, mass_visual: float
) -> Fidelity:
    """Return the numbers of one row, given what the compressed cache said and expected."""
    answer = reference.answer
    same = [i < len(said) and said[i] == token for i, token in enumerate(answer)]
    ours = logits[: len(answer)].float().log_softmax(-1)
    full = reference.logits.to(logits.device).float().log_softmax(-1)
    terms = torch.where(full > -torch.inf, full.exp() * (full - ours), 0.0)
    return Fidelity(
        agreement=sum(same) / len(answer),
        divergence=same.index(False) if False in same else len(answer),
        kl=float(terms.sum(-1).clamp(min=0).mean()),
        perplexity=perplexity(ours, answer),
        perplexity_full=perplexity(full, answer),
        mass=mass,
        mass_visual=mass_visual,
    )


def perplexity(expected: Tensor, answer: Sequence[int]) -> float:
    """Return the perplexity of an answer under log-probabilities [A, vocabulary]."""
    tokens = torch.tensor(answer, device=expected.device)
    loss = -expected.gather(-1, tokens[:, None]).double().mean()
    return math.exp(min(float(loss), LARGEST))


def masses(
    reference: Reference, report: CacheReport, row: int, valid: Tensor
) -> tuple[float, float]:
    """Return the shares of attention to the prompt, and to its visual tokens, that are kept."""
    given, lost = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for layer, received in reference.attention.items():
        gone = torch.ones(len(received), len(valid), dtype=torch.bool)
        for head, line in enumerate(gone):
            line[report.kept(layer, row, head)] = False
        gone = gone[:, valid]
        for i, part in enumerate((received.double(), received.double() * reference.visual)):
            given[i] += part.sum()
            lost[i] += (part * gone).sum()
    mass, visual = (1 - lost / given.where(given > 0, 1.0)).tolist()
    return mass, visual


def rows_of(ids: Answers, rows: int) -> list[list[int]]:
    """Return answers as rows of ids without padding; raises `InputError` if there are too few."""
    listed = ids.tolist() if isinstance(ids, Tensor) else [list(row) for row in ids]
    if len(listed) != rows:
        raise InputError(
            f"answers of {len(listed)} rows came for {rows} prompts; give one for each"
        )
    answers = until_end(listed, ())
    empty = [row for row, answer in enumerate(answers) if not answer]
    if empty:
        raise InputError(
            f"row {empty[0]} has no answer; give at least one token, padded behind with -100"
        )
    return answers


class Fidelities:
    """What an `Answerer` takes as `measures`: fidelity of every row of a batch.

    It remembers the full cache's part of so many batches, and answers of the full cache itself.
    """

    def __init__(self, remembered: int = 8) -> None:
        self.remembered = remembered
        self._references: OrderedDict[str, list[Reference]] = OrderedDict()

    def __call__(
        self,
        loaded: Any,
        inputs: Mapping[str, Any],
        method: Method | None,
        max_new_tokens: int,
        *,
        said_ids: Answers | None = None,
        **settings: Any,
    ) -> list[dict[str, float]]:
        """Return the numbers of each row; none for the full cache, which is what others follow."""
        key = f"{max_new_tokens} {digest(inputs)}"
        known = self._references.pop(key, None)
        if known is None:
            answers = said_ids if method is None else None
            known = references(loaded.model, inputs, answers, max_new_tokens=max_new_tokens)
        self._references[key] = known
        while len(self._references) > self.remembered:
            self._references.popitem(last=False)
        if method is None:
            return [{} for _ in known]
        found = fidelity(
            loaded.model, inputs, method, said_ids=said_ids, reference=known, **settings
        )
        return [row.to_dict() for row in found]


def digest(inputs: Mapping[str, Any]) -> str:
    """Return a digest of all tensors of some inputs."""
    found = hashlib.sha256()
    for name in sorted(inputs):
        value = inputs[name]
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
