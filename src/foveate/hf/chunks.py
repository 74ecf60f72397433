"""Which prompts `generate` of this release of transformers can read in chunks, with one result."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import transformers

from foveate.hf.kinds import has_features
from foveate.hf.support import has_grid_positions

__all__ = ["whole"]


def whole(model: Any, inputs: Mapping[str, Any]) -> str | None:
    """Return why a prompt has to be read whole, or None where chunks give the same."""
    if int(transformers.__version__.partition(".")[0]) < 5:
        return "this release of transformers reads prompts whole; 5.0 and later take chunks"
    parameters = inspect.signature(model.forward).parameters
    pictures = has_features(inputs)
    grid = has_grid_positions(model.config.get_text_config(decoder=True))
    if (pictures or grid) and "mm_encoder_outputs" not in parameters:
        return "this model, or this release of it, reads pictures together with all the text"
    if pictures and "token_type_ids" in parameters:
        return "the parts of a picture see each other in this model, so they are read together"
    return None
