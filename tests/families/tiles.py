"""InternVL, Idefics3, SmolVLM (tiles), Gemma3 (bidirectional images), Mistral3 (native sizes)."""

from collections.abc import Sequence

import torch

from families.base import IMAGE, MARK, VISION_END, VISION_START, Family, Image, pixels, text, vision

TILES = (5, 2, 3, 4)


def tiled(tokens: int, mark: bool):
    """Draws 2 to 5 tiles of `tokens` placeholders each; `mark` puts a token before each."""

    def draw(index: int, rng: torch.Generator) -> Image:
        tile = (MARK, *[IMAGE] * tokens) if mark else (IMAGE,) * tokens
        count = TILES[index]
        return Image(
            (VISION_START, *tile * count, VISION_END), {"tiles": pixels((count, 3, 28, 28), rng)}
        )

    return draw


def collate_flat(rows: Sequence[Sequence[Image]]) -> dict[str, torch.Tensor]:
    """All tiles of the batch in one list."""
    return {"pixel_values": torch.cat([image.pixels["tiles"] for row in rows for image in row])}


def collate_padded(rows: Sequence[Sequence[Image]]) -> dict[str, torch.Tensor]:
    """Tiles per row, padded with all-zero tiles that the model drops."""
    none = torch.zeros(0, 3, 28, 28)
    tiles = [torch.cat([none, *(image.pixels["tiles"] for image in row)]) for row in rows]
    values = torch.nn.utils.rnn.pad_sequence(tiles, batch_first=True)
    return {
        "pixel_values": values,
        "pixel_attention_mask": torch.ones(*values.shape[:2], 28, 28, dtype=torch.bool),
    }


def _internvl() -> dict:
    side = {"image_size": [28, 28], "patch_size": [7, 7], "norm_type": "layer_norm"}
    return {
        "text_config": text("qwen2"),
        "vision_config": vision("internvl_vision", **side),
        "image_token_id": IMAGE,
        "image_seq_length": 4,
        "downsample_ratio": 0.5,
        "tie_word_embeddings": False,
    }


def _idefics3(name: str):
    def settings() -> dict:
        return {
            "text_config": text("llama"),
            "vision_config": vision(f"{name}_vision"),
            "image_token_id": IMAGE,
            "scale_factor": 2,
        }

    return settings


def _gemma3() -> dict:
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    language = text(
        "gemma3_text",
        num_hidden_layers=4,
        layer_types=kinds,
        sliding_window=9,
        query_pre_attn_scalar=8,
    )
    return {
        "text_config": language,
        "vision_config": vision("siglip_vision_model", vision_use_head=False),
        "mm_tokens_per_image": 16,
        "image_token_index": IMAGE,
        "boi_token_index": VISION_START,
        "eoi_token_index": VISION_END,
        "tie_word_embeddings": False,
    }


def gemma(index: int, rng: torch.Generator) -> Image:
    """A square image of 16 tokens between two marks."""
    return Image((VISION_START, *[IMAGE] * 16, VISION_END), {"tiles": pixels((1, 3, 28, 28), rng)})


def pixtral(index: int, rng: torch.Generator) -> Image:
    """An image of its native size; every row of merged patches ends with a mark."""
    h, w = ((8, 10), (4, 6), (6, 6), (10, 8))[index]
    row = (*[IMAGE] * (w // 2), MARK)
    ids = (*(row * (h // 2))[:-1], VISION_END)
    return Image(
        ids, {"picture": pixels((3, 7 * h, 7 * w), rng), "size": torch.tensor([7 * h, 7 * w])}
    )


def collate_pictures(rows: Sequence[Sequence[Image]]) -> dict[str, torch.Tensor]:
    """Pictures padded to the largest height and width, with their sizes."""
    images = [image for row in rows for image in row]
    sizes = torch.stack([image.pixels["size"] for image in images])
    values = torch.zeros(len(images), 3, *sizes.max(0).values.tolist())
    for slot, image in zip(values, images, strict=True):
        slot[:, : image.pixels["size"][0], : image.pixels["size"][1]] = image.pixels["picture"]
    return {"pixel_values": values, "image_sizes": sizes}


def _mistral3() -> dict:
    return {
        "text_config": text("mistral", sliding_window=None),
        "vision_config": vision("pixtral", image_size=70, head_dim=12),
        "image_token_index": IMAGE,
        "spatial_merge_size": 2,
        "tie_word_embeddings": False,
    }


FAMILIES = (
    Family("internvl", "internvl", _internvl, tiled(4, mark=False), collate_flat),
    Family("idefics3", "idefics3", _idefics3("idefics3"), tiled(4, mark=True), collate_padded),
    Family("smolvlm", "smolvlm", _idefics3("smolvlm"), tiled(4, mark=True), collate_padded),
    Family("gemma3", "gemma3", _gemma3, gemma, collate_flat, full_layers=(1, 3)),
    Family("mistral3", "mistral3", _mistral3, pixtral, collate_pictures),
)
