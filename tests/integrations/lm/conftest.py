"""A tiny Llama with random weights, a tokenizer of whole words, and four rows of LongBench's shape.

Nothing is downloaded; the task is lm-eval's own `longbench_hotpotqa` on a local file.
"""

import json
import random
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if find_spec("lm_eval") is None:  # make test-lm has an environment with it
    collect_ignore_glob = ["test_*.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that LongBench's metrics import
        import fuzzywuzzy.fuzz  # noqa: F401
        import jieba  # noqa: F401

TASK = "local_hotpotqa"
WORDS = [f"word{number}" for number in range(60)]


@dataclass(frozen=True)
class Place:
    """Where model, task and rows are."""

    folder: Path
    model: str
    prompts: tuple[str, ...]

    def task(self, answers):
        """Write a task whose right answers are these, and return its folder."""
        import lm_eval

        built_in = Path(lm_eval.__file__).parent / "tasks/longbench/hotpotqa.yaml"
        folder = self.folder / f"tasks-{abs(hash(tuple(answers)))}"
        folder.mkdir(exist_ok=True)
        rows = [{**row, "answers": [said]} for row, said in zip(ROWS, answers, strict=True)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "local.yaml").write_text(
            f"include: {built_in}\ntask: {TASK}\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs:\n  data_files:\n    test: {folder / 'rows.jsonl'}\n"
        )
        return folder

    def manager(self, answers):
        """Return a task manager that knows that task alone."""
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=str(self.task(answers)), include_defaults=False)


def row(seed, length):
    """Return one row: a context of made-up words, and a question."""
    drawn = random.Random(seed)
    return {
        "context": " ".join(drawn.choices(WORDS, k=length)),
        "question": "which word comes after " + drawn.choice(WORDS),
    }


ROWS = [row(seed, length) for seed, length in enumerate((150, 90, 130, 61))]


def tokenizer_of(texts):
    """Return a tokenizer that has one id for every word of the texts."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    names = ["<unk>", "<pad>", "<s>", "</s>", *words]
    made = Tokenizer(models.WordLevel({word: id for id, word in enumerate(names)}, "<unk>"))
    made.pre_tokenizer = split
    made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    template = (
        "Answer the question based on the given passages. Only give me the answer and do not "
        "output any other words.\n\nThe following are given passages.\n{context}\n\nAnswer the "
        "question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\nQuestion: {question}\nAnswer:"
    )
    prompts = tuple(template.format(**row) for row in ROWS)
    tokenizer = tokenizer_of([*prompts, *WORDS])
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # sharp enough that what is kept decides what is said
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return Place(folder, str(folder / "model"), prompts)
