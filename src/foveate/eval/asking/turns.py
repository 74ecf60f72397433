"""Later turns: what a model is given when its cache has seen all that was said before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.hf.forced import ends
from foveate.hf.support import compressible, native_layers
from foveate.method import Method

__all__ = ["Seen", "together"]

BY_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True, eq=False)
class Seen:
    """The tokens [B, T] in a cache, and which of them were said; the others are padding."""

    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, model: Any, given: Mapping[str, Any], sequences: Tensor, length: int) -> Seen:
        """Return what a cache of that length has seen, given a turn's inputs and what came out."""
        told = sequences[:, given["input_ids"].shape[1] :]
        last = torch.isin(told, torch.tensor(ends(model), device=told.device)).long()
        said = last.cumsum(-1) - last == 0  # a row that has ended is padded until all have
        mask = torch.cat([given["attention_mask"].bool(), said], -1)
        return cls(sequences[:, :length], mask[:, :length])

    def followed(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the inputs of the next turn, given those of the whole conversations.

        Images are left out, since the cache holds them. What is new is padded on the left, between
        the old and the new. Raises `InputError` where a conversation does not begin with what the
        cache has seen.
        """
        whole = inputs["attention_mask"].bool()
        new = whole.sum(-1) - self.mask.sum(-1)
        if int(new.min()) < 1:
            raise _rewritten()
        longest = int(new.max())
        place = torch.arange(longest, device=new.device)
        mask = torch.cat([self.mask, place >= longest - new[:, None]], -1)
        given = {}
        for name in BY_TOKEN:
            if name in inputs:
                given[name] = torch.zeros_like(mask, dtype=inputs[name].dtype)
                given[name][mask] = inputs[name][whole]
        again = given["input_ids"][:, : self.ids.shape[1]]
        if not torch.equal(again[self.mask], self.ids[self.mask]):
            raise _rewritten()
        return given


def _rewritten() -> InputError:
    return InputError(
        "the conversation with the model's own answer does not begin with the tokens that the "
        "cache has seen: this chat template writes past turns in another way than the model was "
        "asked in; ask in one turn, or use another model"
    )


def together(model: Any, method: Method | None) -> bool:
    """Return whether rows of a batch can have later turns as they would alone.

    Padding in the middle must be nothing to any layer, and to what is evicted while decoding.
    """
    text = model.config.get_text_config(decoder=True)
    plain = len(compressible(text)) == len(native_layers(text))
    placed = not hasattr(getattr(model, "model", None), "rope_deltas") or hasattr(
        model, "_prepare_position_ids_for_generation"
    )  # before that, models with positions in time, height and width counted padding, too
    return plain and placed and (method is None or method.when.follow is None)
