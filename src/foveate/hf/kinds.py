"""Token kinds from what a forward pass is given: ids, features, the padding mask, the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.types import PAD, TEXT, VISUAL, Grid, TokenKinds

_FEATURES = (
    "pixel_values",
    "pixel_values_videos",
    "pixel_values_images",
    "pixel_values_local",
    "high_res_pixel_values",
    "image_embeds",
    "image_patches",
    "image_hidden_states",
    "mm_encoder_outputs",
    "patches",
)
GRIDS = ("image_grid_thw", "video_grid_thw")


def visual_ids(config: Any) -> tuple[int, ...]:
    """Return the ids of the placeholders that image and video features replace."""
    names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
    found = {getattr(config, name, None) for name in names}
    return tuple(sorted(value for value in found if isinstance(value, int) and value >= 0))


def special_ids(config: Any, generation_config: Any) -> tuple[int, ...]:
    """Return the template ids that the configs name: begin, end, padding, vision markers."""
    found: set[int] = set()
    for source in (config, config.get_text_config(decoder=True), generation_config):
        values = source.to_dict() if source is not None else {}
        for name, value in values.items():
            if name.endswith(("token_id", "token_ids", "token_index")):
                found.update(
                    x for x in (value if isinstance(value, list) else [value]) if isinstance(x, int)
                )
    return tuple(sorted(found - set(visual_ids(config))))


def has_features(kwargs: Mapping[str, Any]) -> bool:
    """Return whether the call carries image or video features."""
    return any(kwargs.get(name) is not None for name in _FEATURES)


def padding(mask: Any, tokens: int) -> Tensor | None:
    """Return where the last `tokens` positions are padding, or None if the call does not say.

    A four-dimensional mask says it by columns that no query sees.
    """
    if isinstance(mask, Mapping):
        mask = next((value for name, value in mask.items() if "full" in name), None)
    if not isinstance(mask, Tensor):
        return None
    if mask.ndim == 2:
        return mask[:, -tokens:] == 0
    if mask.ndim == 4:
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(torch.float16).min
        return ~seen[:, 0].any(-2)[:, -tokens:]
    return None


def forward_kinds(
    config: Any,
    kwargs: Mapping[str, Any],
    *,
    trust_ids: bool,
    special: tuple[int, ...],
    placeholder: Tensor | None,
    visual_mask: Tensor | None,
) -> TokenKinds:
    """Return what the tokens of this forward pass are.

    `visual_mask` [B, T'] is the caller's own statement about them. `placeholder` [n, C] holds the
    embeddings of the placeholders, for calls that bring embeddings and features together.
    """
    ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
    source = ids if ids is not None else embeds
    if source is None:
        raise InputError(
            "neither input_ids nor inputs_embeds came; a forward pass needs one of them"
        )
    B, tokens = source.shape[:2]
    kind = torch.full((B, tokens), TEXT, device=source.device)
    marks = torch.zeros_like(kind, dtype=torch.bool)
    if visual_mask is not None:
        visual = visual_mask.to(kind.device)
        if visual.shape != kind.shape:
            raise InputError(
                f"visual_mask covers {tuple(visual.shape)} where the prompt has "
                f"{tuple(kind.shape)} positions; give one bool for every position, padding included"
            )
        kind[visual.bool()] = VISUAL
    elif trust_ids and ids is not None:
        kind[
            torch.isin(ids, torch.tensor(visual_ids(config), device=ids.device, dtype=ids.dtype))
        ] = VISUAL
    elif trust_ids and embeds is not None and placeholder is not None and has_features(kwargs):
        same = embeds[:, :, None] == placeholder.to(embeds)  # [B, T, n, C]
        kind[same.all(-1).any(-1)] = VISUAL
    if ids is not None and special:
        marks = torch.isin(ids, torch.tensor(special, device=ids.device, dtype=ids.dtype)) & (
            kind == TEXT
        )
    pads = padding(kwargs.get("attention_mask"), tokens)
    if pads is not None and pads.shape[-1] == tokens:
        kind[pads.to(kind.device).expand(B, -1)] = PAD
    kinds = TokenKinds.of(kind, marks)
    return TokenKinds(kinds.kind, kinds.span, kinds.special, grids(config, kwargs, kinds))


def grids(
    config: Any, kwargs: Mapping[str, Any], kinds: TokenKinds
) -> tuple[tuple[Grid, ...], ...]:
    """Return the patch grid of every span where the call states it and the counts agree.

    Rows may be copies (beams) of those that it speaks of, copies of one row beside each other.
    """
    given = [kwargs[name] for name in GRIDS if isinstance(kwargs.get(name), Tensor)]
    if len(given) != 1:
        return ()
    merge = getattr(getattr(config, "vision_config", None), "spatial_merge_size", 1)
    flat = [(int(t), int(h) // merge, int(w) // merge) for t, h, w in given[0].tolist()]
    sizes = [torch.bincount(row.clamp(min=-1) + 1)[1:].tolist() for row in kinds.span]
    copies = max(sum(map(len, sizes)) // max(len(flat), 1), 1)
    found: list[tuple[Grid, ...]] = []
    for row in range(0, len(sizes), copies):
        mine, flat = flat[: len(sizes[row])], flat[len(sizes[row]) :]
        for copy in sizes[row : row + copies]:
            if [t * h * w for t, h, w in mine] != copy:
                return ()
            found.append(tuple(mine))
    return tuple(found) if not flat else ()


def stated(
    mask: Tensor | None, kwargs: Mapping[str, Any], seen: int, tokens: int, complete: int | None
) -> Tensor | None:
    """Return the caller's visual mask [B, T] for the new tokens, None behind it.

    Drafts behind a prompt that is `complete` at the mask's length are text.
    """
    if mask is None or seen >= mask.shape[1]:
        return None
    given = (kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
    rows = len(next(x for x in given if x is not None))
    new = mask[:, seen : seen + tokens]
    if rows % len(mask) == 0:
        new = new.repeat_interleave(rows // len(mask), 0)
    drafted = tokens - new.shape[1]
    if drafted and complete == mask.shape[1]:
        new = torch.nn.functional.pad(new, (0, drafted))
    return new
