"""Language models that vLLM can continue from our keys: what they are there, what is refused."""

from __future__ import annotations

from typing import Any

from foveate.errors import UnsupportedModel
from foveate.hf.support import optional

__all__ = ["check_rotation", "known_family", "rope_settings"]

# The text model of a vision-language model, and the causal language model that it is by itself.
FAMILIES = {
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3": "qwen3",
    "qwen3_vl_text": "qwen3",
}
# Under these, what attention sees depends on differences of positions alone, at every length.
UNIFORM = ("default", "linear", "llama3", "yarn")
GRID = ("mrope_section", "mrope_interleaved", "section")  # text has one position, not three


def known_family(text_config: Any) -> str:
    """Return the model type of the causal language model, or raise `UnsupportedModel`."""
    found = str(text_config.model_type)
    if found not in FAMILIES:
        raise UnsupportedModel(
            f"the language model {found!r} cannot be handed to vLLM; known: {', '.join(FAMILIES)}"
        )
    return FAMILIES[found]


def rope_settings(text_config: Any) -> dict[str, Any]:
    """Return the rotary settings of text positions, in the spelling of the installed release."""
    settings: dict[str, Any] = {}
    for name in ("rope_parameters", "rope_scaling"):
        given = optional(text_config, name)
        if isinstance(given, dict):
            kept = {k: v for k, v in given.items() if k not in GRID}
            for spelling in ("rope_type", "type"):
                if kept.get(spelling) == "mrope":
                    kept[spelling] = "default"
            settings[name] = kept
    scaling = settings.get("rope_scaling")
    if scaling is not None and set(scaling.values()) <= {"default"}:
        settings["rope_scaling"] = None
    if "rope_parameters" in settings:  # newer releases read this one alone
        settings.pop("rope_scaling", None)
    elif optional(text_config, "rope_theta") is not None:
        settings["rope_theta"] = text_config.rope_theta
    return settings


def check_rotation(text_config: Any) -> None:
    """Raise `UnsupportedModel` if turning every key alike does not move them all alike."""
    settings = rope_settings(text_config)
    given = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in UNIFORM:
        raise UnsupportedModel(
            f"rotary positions of the kind {kind!r} came, whose frequencies depend on the length, "
            f"so that kept keys cannot be moved together; allowed: {', '.join(UNIFORM)}"
        )
