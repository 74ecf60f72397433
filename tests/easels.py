"""Processors and tiny models of every family whose pictures are painted on in tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from families import BY_NAME, IMAGE, Family
from families.base import MARK, VIDEO, VISION_END, VISION_START, text, vision
from families.llava import PINPOINTS, fixed
from foveate.tiny import architecture
from foveate.tiny.processor import ONE_IMAGE, Processor
from painting import Easel, images, processor, tokenizer

SQUARE = {"height": 28, "width": 28}
SHORTEST = {"size": {"shortest_edge": 28}, "crop_size": SQUARE}


def _qwen(family: str, name: str) -> Callable[[], Any]:
    """A Qwen-VL whose tokens are 8 pixels wide and high."""

    def make() -> Any:
        words = tokenizer(
            image_token=("<|image_pad|>", IMAGE), video_token=("<|video_pad|>", VIDEO),
            vision_start_token=("<|vision_start|>", VISION_START),
            vision_end_token=("<|vision_end|>", VISION_END),
        )  # fmt: skip
        small = {"patch_size": 4, "min_pixels": 64, "max_pixels": 64 * 64}
        made = images("qwen2_vl", "Qwen2VLImageProcessor", **small)
        return processor(family, name, image_processor=made, tokenizer=words)

    return make


def _llava() -> Any:
    return _clip("llava", "LlavaProcessor", images("clip", "CLIPImageProcessor", **SHORTEST))


def _bordered() -> Any:
    made = images("llava", "LlavaImageProcessor", **SHORTEST, do_pad=True)
    return _clip("llava", "LlavaProcessor", made)


def _next() -> Any:
    made = images(
        "llava_next", "LlavaNextImageProcessor", **SHORTEST, image_grid_pinpoints=PINPOINTS
    )
    return _clip("llava_next", "LlavaNextProcessor", made)


def _clip(family: str, name: str, made: Any) -> Any:
    """A processor for a tower of 4 x 4 patches beside a token of its own."""
    return processor(
        family, name, image_processor=made, tokenizer=tokenizer(image_token=("<image>", IMAGE)),
        patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def _onevision() -> Any:
    made = images(
        "llava_onevision",
        "LlavaOnevisionImageProcessor",
        size=SQUARE,
        image_grid_pinpoints=PINPOINTS,
    )
    words = tokenizer(image_token=("<image>", IMAGE), video_token=("<video>", VIDEO))
    return processor(
        "llava_onevision", "LlavaOnevisionProcessor", image_processor=made, tokenizer=words,
        num_image_tokens=16, vision_feature_select_strategy="full",
    )  # fmt: skip


def _internvl() -> Any:
    words = tokenizer(
        start_image_token=("<img>", VISION_START), end_image_token=("</img>", VISION_END),
        context_image_token=("<IMG_CONTEXT>", IMAGE), video_token=("<video>", VIDEO),
    )  # fmt: skip
    made = images(
        "got_ocr2", "GotOcr2ImageProcessor", size=SQUARE, crop_to_patches=True, max_patches=6
    )
    return processor(
        "internvl", "InternVLProcessor", image_processor=made, tokenizer=words, image_seq_length=4
    )


def _idefics(family: str, split: bool = True) -> Callable[[], Any]:
    """A processor that cuts pictures into up to 3 x 3 tiles of 2 x 2 tokens."""

    def make() -> Any:
        tiles = {f"t{n}": (f"<row_{n // 6 + 1}_col_{n % 6 + 1}>", 100 + n) for n in range(36)}
        words = tokenizer(
            image_token=("<image>", IMAGE), fake_image_token=("<fake_token_around_image>", MARK),
            global_image_token=("<global-img>", 205),
            end_of_utterance_token=("<end_of_utterance>", 206), **tiles,
        )  # fmt: skip
        sizes = {"size": {"longest_edge": 84}, "max_image_size": {"longest_edge": 28}}
        name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[family]
        made = images(family, f"{name}ImageProcessor", **sizes, do_image_splitting=split)
        if family == "idefics3":
            return processor(family, "Idefics3Processor", made, words, image_seq_len=4)
        with pytest.MonkeyPatch.context() as patch:  # it writes the lengths of videos in words
            place = "transformers.models.smolvlm.processing_smolvlm"
            pytest.importorskip(place, exc_type=ImportError)
            patch.setattr(f"{place}.num2words", str)
            return processor(family, "SmolVLMProcessor", made, words, None, image_seq_len=4)

    return make


class _Pixtral:
    """The prompts of Pixtral, whose processor needs torchvision; its image processor does not."""

    def __init__(self) -> None:
        side = {"height": 14, "width": 14}
        self.image_processor = images(
            "pixtral", "PixtralImageProcessor", size={"longest_edge": 70}, patch_size=side
        )
        self.words = tokenizer(image_token=("[IMG]", IMAGE), image_break_token=("[BREAK]", MARK))

    def __call__(self, text: Sequence[str], images: Any, **options: Any) -> dict[str, Any]:
        made = dict(self.image_processor(images, return_tensors="pt"))
        grids = iter((made["image_sizes"] // 14).tolist())
        texts = []
        for one in text:
            while "<picture>" in one:
                rows, columns = next(grids)
                one = one.replace("<picture>", ("[IMG]" * columns + "[BREAK]") * rows, 1)
            texts.append(one)
        return {**self.words(texts, **options), **made}


def _gemma3(side: int) -> Callable[[], Any]:
    def make() -> Any:
        words = tokenizer(
            image_token=("<image_soft_token>", IMAGE), boi_token=("<start_of_image>", VISION_START),
            eoi_token=("<end_of_image>", VISION_END),
        )  # fmt: skip
        made = images("gemma3", "Gemma3ImageProcessor", size={"height": side, "width": side})
        return processor("gemma3", "Gemma3Processor", made, words, image_seq_length=16)

    return make


def _paligemma() -> Any:
    made = images("siglip", "SiglipImageProcessor", size=SQUARE)
    made.image_seq_length = 16
    words = tokenizer(image_token=("<image>", IMAGE))
    return processor("paligemma", "PaliGemmaProcessor", made, words)


def _paligemma_config() -> dict[str, Any]:
    return {
        "text_config": text("gemma"),
        "vision_config": vision("siglip_vision_model", vision_use_head=False),
        "image_token_index": IMAGE,
        "projection_dim": 48,
    }


def _embedded() -> Any:
    made = Processor()

    def read(text: Sequence[str], **options: Any) -> Any:
        return made(text=["ABC" + one.count("@") * ONE_IMAGE + "AB?" for one in text], **options)

    return read


def _uneven() -> dict[str, Any]:
    """A tower that leaves out the last five rows and columns of pixels, as SigLIP's does."""
    settings = BY_NAME["gemma3"].settings()
    side = {"image_size": 33, "patch_size": 7}
    return settings | {"vision_config": settings["vision_config"] | side}


PALIGEMMA = Family("paligemma", "paligemma", _paligemma_config, fixed)
ONE = "<|vision_start|><|image_pad|><|vision_end|>"


def _tower() -> dict[str, Any]:
    """A LLaVA with the tower of Pixtral, whose patches are tokens."""
    side = {"image_size": 70, "patch_size": 14, "head_dim": 12}
    whole = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    return BY_NAME["llava-1.5"].settings() | whole | {"vision_config": vision("pixtral", **side)}


def _vipllava() -> dict[str, Any]:
    return BY_NAME["llava-1.5"].settings() | {"vision_feature_layers": [-1, -2]}


TOWER = Family("llava-pixtral", "llava", _tower, fixed)
VIPLLAVA = Family("vipllava", "vipllava", _vipllava, fixed)
UNEVEN = Family("gemma3-uneven", "gemma3", _uneven, fixed)
ONE = "<|vision_start|><|image_pad|><|vision_end|>"
EASELS = (
    Easel("embedded", _embedded, architecture.build, "@"),
    Easel("qwen2-vl", _qwen("qwen2_vl", "Qwen2VLProcessor"), BY_NAME["qwen2-vl"].build, ONE),
    Easel(
        "qwen2.5-vl", _qwen("qwen2_5_vl", "Qwen2_5_VLProcessor"), BY_NAME["qwen2.5-vl"].build, ONE
    ),
    Easel("qwen3-vl", _qwen("qwen3_vl", "Qwen3VLProcessor"), BY_NAME["qwen3-vl"].build, ONE),
    Easel("llava-1.5", _llava, BY_NAME["llava-1.5"].build, "<image>"),
    Easel("vipllava", _llava, VIPLLAVA.build, "<image>"),
    Easel("llava-pixtral", _Pixtral, TOWER.build, "<picture>"),
    Easel("llava-bordered", _bordered, BY_NAME["llava-1.5"].build, "<image>"),
    Easel("llava-next", _next, BY_NAME["llava-next"].build, "<image>"),
    Easel("llava-onevision", _onevision, BY_NAME["llava-onevision"].build, "<image>"),
    Easel(
        "llava-onevision-together", _onevision, BY_NAME["llava-onevision"].build, "<image>", True
    ),
    Easel("internvl", _internvl, BY_NAME["internvl"].build, "<IMG_CONTEXT>"),
    Easel("idefics3", _idefics("idefics3"), BY_NAME["idefics3"].build, "<image>", True),
    Easel(
        "idefics3-whole", _idefics("idefics3", False), BY_NAME["idefics3"].build, "<image>", True
    ),
    Easel("smolvlm", _idefics("smolvlm"), BY_NAME["smolvlm"].build, "<image>", True),
    Easel("mistral3", _Pixtral, BY_NAME["mistral3"].build, "<picture>"),
    Easel("gemma3", _gemma3(28), BY_NAME["gemma3"].build, "<start_of_image>", True),
    Easel("gemma3-uneven", _gemma3(33), UNEVEN.build, "<start_of_image>", True),
    Easel("paligemma", _paligemma, PALIGEMMA.build, "<image>", True),
)
