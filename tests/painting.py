"""Real processors over made-up words, and models whose visual tokens see their own pixels only.

An `Easel` makes prompts of pictures; `change` tells at which positions of a prompt the model puts
another embedding when a picture is painted on: what a test compares with what `pictures` says.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from families import EOS, PAD, VOCAB

GREY, BLACK = (220, 220, 220), (0, 0, 0)
WORDS = {"<pad>": PAD, "</s>": EOS, "<s>": 2, "<unk>": 3, "\n": 4, "\n\n": 5}


@dataclass(frozen=True)
class Easel:
    """A family's processor and how to build a tiny model of it; `mark` stands for a picture.

    `together` says whether the pictures of a prompt are handed over as a list of their own.
    """

    name: str
    processor: Callable[[], Any]
    build: Callable[[], Any]
    mark: str
    together: bool = False

    def __str__(self) -> str:
        return self.name

    def prompts(self, made: Any, rows: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        """What the processor `made` here makes of rows of pictures, padded to one length."""
        texts = ["w9 " + f"w8 {self.mark} w7 " * len(row) + "w10 w11" for row in rows]
        listed: Any = [list(row) for row in rows]
        if not self.together:
            listed = [picture for row in listed for picture in row]
        return dict(made(text=texts, images=listed, padding=True, return_tensors="pt"))


def images(family: str, name: str, **settings: Any) -> Any:
    """An image processor that needs nothing but Pillow, or skip where there is none."""
    places = (
        (f"image_processing_pil_{family}", name + "Pil"),
        (f"image_processing_{family}", name),
    )
    for place, known in places:  # the second is what releases before 5.4 have
        try:
            module = importlib.import_module(f"transformers.models.{family}.{place}")
            return getattr(module, known)(**settings)
        except (ImportError, AttributeError):
            continue
    pytest.skip(f"{name} needs torchvision in this transformers")


def processor(family: str, name: str, *parts: Any, **settings: Any) -> Any:
    """A processor with any tokenizer, without one for videos: that would need torchvision."""
    try:
        module = importlib.import_module(f"transformers.models.{family}.processing_{family}")
    except ImportError as error:
        pytest.skip(f"{name} in this transformers: {error}")

    def check(self: Any, argument: str, value: Any) -> type:
        return type(value)

    blind = type(name, (getattr(module, name),), {"check_argument_for_proper_class": check})
    return blind(*parts, **settings)


def tokenizer(**named: tuple[str, int]) -> PreTrainedTokenizerFast:
    """A tokenizer of words and of tokens by their names, such as image_token=("<image>", 200)."""
    words = WORDS | dict(named.values())
    taken = set(words.values())
    words |= {f"w{i}": i for i in range(6, VOCAB) if i not in taken}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|[^\s]+"), "removed", invert=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", bos_token="<s>",
        unk_token="<unk>", padding_side="left", model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens={name: word for name, (word, _) in named.items() if "_token" in name},
    )  # fmt: skip
    fast.add_tokens([word for word, _ in named.values()], special_tokens=True)
    assert all(fast.convert_tokens_to_ids(word) == number for word, number in named.values())
    return fast


def picture(size: tuple[int, int], box: Sequence[float] | None = None) -> Image.Image:
    """A grey picture, with a black box on it if one is given in pixels."""
    made = Image.new("RGB", size, GREY)
    if box is not None:
        left, top, right, bottom = (round(at) for at in box)
        ImageDraw.Draw(made).rectangle(
            (left, top, max(right - 1, left), max(bottom - 1, top)), BLACK
        )
    return made


def near_sighted(model: torch.nn.Module) -> torch.nn.Module:
    """The model, every layer of its vision tower left out: tokens know their own patches only."""

    def passed(layer: Any, args: Any, kwargs: Any, output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    for name, part in model.named_modules():
        if "vis" in name and name.rsplit(".")[-1] in ("layers", "layer", "blocks"):
            for layer in part:
                layer.register_forward_hook(passed, with_kwargs=True)
    return model


class _Seen(Exception):
    """The language model is about to read its embeddings."""


@torch.no_grad()
def embeddings(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What the language model reads [B, T, C]: words, and what the model made of the pictures."""
    found: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found.append(kwargs["inputs_embeds"])
        raise _Seen

    reader = getattr(model.model, "text_model", None) or model.get_decoder()
    hook = reader.register_forward_pre_hook(look, with_kwargs=True)
    try:
        model(**inputs)
    except _Seen:
        pass
    finally:
        hook.remove()
    return found[0].float()


def change(model: Any, plain: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """How far embeddings are from those of the plain prompt, per position [B, T]."""
    return (embeddings(model, inputs) - plain).norm(dim=-1)
