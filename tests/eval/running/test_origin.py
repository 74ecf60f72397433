"""A log that goes on is of the model that the command names."""

from pathlib import Path

import pytest

from foveate.errors import InputError
from foveate.eval.record import Run
from foveate.eval.running.origin import check_asked

LOG = Path("log.jsonl")


def begun(attention):
    settings = {"dtype": "bfloat16", "attention": attention}
    return Run("org/model", "abc", "c1", "2026-01-02", {}, {}, settings, {}, {})


@pytest.mark.parametrize("attn", [None, "flash_attention_2"])
def test_a_kernel_of_the_hub_stands_for_the_name_it_was_asked_by(attn):
    check_asked(begun("kernels-community/flash-attn2"), LOG, "org/model", "auto", attn)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("org/other", "auto", None), "model org/model, and now it is org/other"),
        ((None, "auto", None), "model org/model, and now it is embedded"),
        (("org/model", "float16", None), "dtype bfloat16, and now it is float16"),
        (("org/model", "auto", "eager"), "attention sdpa, and now it is eager"),
    ],
)
def test_another_model_is_refused(words, says):
    with pytest.raises(InputError, match=f"log.jsonl: begun with {says}; give"):
        check_asked(begun("sdpa"), LOG, *words)
