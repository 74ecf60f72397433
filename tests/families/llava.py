"""LLaVA-1.5 (fixed tiles), LLaVA-NeXT and LLaVA-OneVision (any resolution with row ends)."""

from collections.abc import Sequence

import torch
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from families.base import IMAGE, VIDEO, Family, Image, pixels, text, vision

PINPOINTS = [[28, 56], [56, 28], [56, 56]]
SIZES = ((50, 60), (28, 56), (56, 28), (45, 30))  # height, width of the original pictures
SIDE = 4  # patches per side of a tile


def fixed(index: int, rng: torch.Generator) -> Image:
    """A square image of 16 tokens, whatever its size was."""
    return Image((IMAGE,) * SIDE**2, {"tile": pixels((3, 28, 28), rng)})


def collate_fixed(rows: Sequence[Sequence[Image]]) -> dict[str, torch.Tensor]:
    """One tile per image."""
    return {"pixel_values": torch.stack([image.pixels["tile"] for row in rows for image in row])}


class _Count(LlavaOnevisionProcessor):
    """The processor's own token arithmetic, without its tokenizer."""

    def __init__(self) -> None:
        self.num_image_tokens = SIDE**2
        self.vision_aspect_ratio = "anyres_max_9"


def anyres(processor: type):
    """Draws the overview tile and the tiles of the best resolution."""

    def draw(index: int, rng: torch.Generator) -> Image:
        size = SIZES[index]
        height, width = select_best_resolution(size, PINPOINTS)
        rows, columns = height // 28, width // 28
        me = _Count()
        features = processor._get_unpadded_features(me, *size, SIDE, SIDE, rows, columns)
        tokens = sum(features) + SIDE**2
        tiles = pixels((1 + rows * columns, 3, 28, 28), rng)
        return Image((IMAGE,) * tokens, {"tiles": tiles, "size": torch.tensor(size)})

    return draw


def collate_tiles(rows: Sequence[Sequence[Image]]) -> dict[str, torch.Tensor]:
    """Tiles padded with zeros to the largest count, and the sizes of the pictures."""
    images = [image for row in rows for image in row]
    return {
        "pixel_values": torch.nn.utils.rnn.pad_sequence(
            [i.pixels["tiles"] for i in images], batch_first=True
        ),
        "image_sizes": torch.stack([i.pixels["size"] for i in images]),
    }


def _llava() -> dict:
    return {
        "text_config": text("llama"),
        "vision_config": vision("clip_vision_model", projection_dim=24),
        "image_token_index": IMAGE,
        "image_seq_length": SIDE**2,
    }


def _next() -> dict:
    return {
        "text_config": text("mistral", sliding_window=None),
        "vision_config": vision("clip_vision_model", projection_dim=24),
        "image_token_index": IMAGE,
        "image_grid_pinpoints": PINPOINTS,
        "image_seq_length": SIDE**2,
    }


def _onevision() -> dict:
    return {
        "text_config": text("qwen2"),
        "vision_config": vision("siglip_vision_model", vision_use_head=False),
        "image_token_index": IMAGE,
        "video_token_index": VIDEO,
        "image_grid_pinpoints": PINPOINTS,
    }


FAMILIES = (
    Family("llava-1.5", "llava", _llava, fixed, collate_fixed),
    Family("llava-next", "llava_next", _next, anyres(LlavaNextProcessor), collate_tiles),
    Family(
        "llava-onevision",
        "llava_onevision",
        _onevision,
        anyres(LlavaOnevisionProcessor),
        collate_tiles,
    ),
)
