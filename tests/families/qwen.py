"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a patch grid per image, M-RoPE, `mm_token_type_ids`."""

from collections.abc import Sequence

import torch

from families.base import IMAGE, VIDEO, VISION_END, VISION_START, Family, Image, pixels, rope, text

TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
GRIDS = ((1, 8, 10), (1, 4, 6), (1, 6, 6), (1, 10, 8))  # patches; 2 x 2 of them make a token
MROPE = {"mrope_section": [2, 1, 1]}


def image(patch: int):
    """Draws flattened patches as the processor does."""

    def draw(index: int, rng: torch.Generator) -> Image:
        t, h, w = GRIDS[index]
        ids = (VISION_START, *[IMAGE] * (t * h * w // 4), VISION_END)
        return Image(
            ids,
            {
                "patches": pixels((t * h * w, 3 * 2 * patch**2), rng),
                "grid": torch.tensor([t, h, w]),
            },
        )

    return draw


def collate(rows: Sequence[Sequence[Image]]) -> dict[str, torch.Tensor]:
    """All patches of the batch in one list, with the grids."""
    images = [image for row in rows for image in row]
    return {
        "pixel_values": torch.cat([image.pixels["patches"] for image in images]),
        "image_grid_thw": torch.stack([image.pixels["grid"] for image in images]),
    }


def _qwen2() -> dict:
    vision = {
        "depth": 2,
        "embed_dim": 24,
        "hidden_size": 48,
        "num_heads": 2,
        "patch_size": 4,
        "mlp_ratio": 2,
    }
    return TOKENS | {"text_config": text("qwen2_vl_text", **rope(**MROPE)), "vision_config": vision}


def _qwen25() -> dict:
    vision = {
        "depth": 2,
        "hidden_size": 24,
        "out_hidden_size": 48,
        "num_heads": 2,
        "patch_size": 4,
        "intermediate_size": 28,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return TOKENS | {
        "text_config": text("qwen2_5_vl_text", **rope(**MROPE)),
        "vision_config": vision,
    }


def _qwen3() -> dict:
    vision = {
        "depth": 3,
        "hidden_size": 24,
        "out_hidden_size": 48,
        "num_heads": 2,
        "patch_size": 4,
        "intermediate_size": 28,
        "num_position_embeddings": 49,
        "deepstack_visual_indexes": [0, 1],
    }
    return TOKENS | {
        "text_config": text("qwen3_vl_text", **rope(**MROPE, **_interleaved())),
        "vision_config": vision,
    }


def _interleaved() -> dict:
    return {"mrope_interleaved": True}


FAMILIES = (
    Family("qwen2-vl", "qwen2_vl", _qwen2, image(4), collate),
    Family("qwen2.5-vl", "qwen2_5_vl", _qwen25, image(4), collate),
    Family("qwen3-vl", "qwen3_vl", _qwen3, image(4), collate),
)
