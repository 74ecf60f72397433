"""Text and images to model inputs, and tokens back to text, without torchvision."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from foveate.errors import InputError
from foveate.tiny import tokenizer
from foveate.tiny.images import ImageProcessor
from foveate.tiny.vocabulary import END, IMAGE, TOKENS, VISION_END, VISION_START

ONE_IMAGE = TOKENS[VISION_START] + TOKENS[IMAGE] + TOKENS[VISION_END]
Picture = Image.Image | str | Path
Message = dict[str, Any]


class Processor:
    """The processor surface of Hugging Face for the embedded model."""

    model_input_names = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values",
        "image_grid_thw",
    )
    image_token = TOKENS[IMAGE]
    image_token_id = IMAGE

    def __init__(self) -> None:
        self.tokenizer: PreTrainedTokenizerFast = tokenizer.build()
        self.image_processor = ImageProcessor()
        forward = inspect.signature(Qwen3VLForConditionalGeneration.forward)
        self.gives_token_types = "mm_token_type_ids" in forward.parameters

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        padding_side: str = "left",
        return_tensors: str | None = None,
        **ignored: Any,
    ) -> BatchFeature:
        """Inputs of one prompt or several; every `<|image_pad|>` in a text stands for one image."""
        if text is None and _is_text(images):
            images, text = None, images
        if text is None:
            raise InputError("no text came; pass text='ABC?' with the question")
        texts = [text] if isinstance(text, str) else list(text)
        pictures = list(_flat(images))
        data: dict[str, Any] = {}
        grids: Iterator[Any] = iter(())
        self._count(texts, len(pictures))
        if pictures:
            data = dict(self.image_processor(pictures, return_tensors or "np"))
            grids = iter(data["image_grid_thw"])
        rows = [self._ids(one, grids) for one in texts]
        data = {**self._padded(rows, bool(padding), padding_side, return_tensors), **data}
        return BatchFeature(data)

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The prompt of a conversation, or of a list of them: text, token ids or model inputs."""
        several = bool(conversation) and not isinstance(conversation[0], dict)
        chats = list(conversation) if several else [conversation]
        written = [_write(chat) for chat in chats]
        texts = [text for text, _ in written]
        if not tokenize:
            return texts if several else texts[0]
        pictures = [picture for _, listed in written for picture in listed]
        options = {"padding": several, **options, **(processor_kwargs or {})}
        inputs = self(pictures or None, texts, return_tensors=return_tensors, **options)
        return inputs if return_dict else inputs["input_ids"]

    def decode(self, ids: Any, skip_special_tokens: bool = True, **options: Any) -> str:
        """The text of one sequence of token ids."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def batch_decode(self, ids: Any, skip_special_tokens: bool = True, **options: Any) -> list[str]:
        """The texts of several sequences of token ids."""
        return [self.decode(row, skip_special_tokens) for row in ids]

    def post_process_image_text_to_text(self, ids: Any, **options: Any) -> list[str]:
        """What pipelines call to turn generated ids into texts."""
        return self.batch_decode(ids, options.get("skip_special_tokens", True))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer where stock loaders find it."""
        self.tokenizer.save_pretrained(folder)

    def _count(self, texts: list[str], pictures: int) -> None:
        marks = sum(text.count(self.image_token) for text in texts)
        if marks != pictures:
            raise InputError(
                f"{pictures} images came for {marks} places ({self.image_token}) in the text; "
                f"write {ONE_IMAGE} for each image, or use apply_chat_template"
            )

    def _ids(self, text: str, grids: Iterator[Any]) -> list[int]:
        tokenizer.check(text)
        first, *rest = text.split(self.image_token)
        for part in rest:
            _, height, width = next(grids)
            first += self.image_token * int(height * width) + part
        return list(self.tokenizer.encode(first, add_special_tokens=False))

    def _padded(
        self, rows: list[list[int]], padding: bool, side: str, tensors: str | None
    ) -> dict[str, Any]:
        length = max(map(len, rows))
        if tensors == "pt" and not padding and any(len(row) != length for row in rows):
            raise InputError("prompts of different lengths came without padding; pass padding=True")
        data: dict[str, Any] = {"input_ids": [], "attention_mask": [], "mm_token_type_ids": []}
        for row in rows:
            empty = [0] * (length - len(row) if padding else 0)
            kinds = [int(token == IMAGE) for token in row]
            for name, values in zip(data, (row, [1] * len(row), kinds), strict=True):
                data[name].append(empty + values if side == "left" else values + empty)
        if not self.gives_token_types:
            del data["mm_token_type_ids"]
        if tensors == "pt":
            return {name: torch.tensor(values) for name, values in data.items()}
        return data


def _is_text(given: Any) -> bool:
    listed = [given] if isinstance(given, str) else given
    return isinstance(listed, list) and all(isinstance(item, str) for item in listed)


def _flat(images: Any) -> Iterator[Image.Image]:
    if images is None:
        return
    if isinstance(images, Image.Image):
        yield images
    elif isinstance(images, str | Path):
        yield _open(images)
    elif isinstance(images, Sequence):
        for item in images:
            yield from _flat(item)
    else:
        raise InputError(
            f"an image of type {type(images).__name__}; Pillow images and paths are allowed; "
            "convert it with PIL.Image.fromarray"
        )


def _open(path: str | Path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError as error:
        raise InputError(
            f"cannot read the image {str(path)!r}: {error}; give a picture file"
        ) from error


def _write(chat: Sequence[Message]) -> tuple[str, list[Image.Image]]:
    text, pictures = "", list[Image.Image]()
    for message in chat:
        if message["role"] not in ("user", "assistant"):
            raise InputError(
                f"a turn of role {message['role']!r}; the embedded model knows 'user' and "
                "'assistant'; leave other turns out"
            )
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                text += part["text"]
            elif part["type"] == "image":
                text += ONE_IMAGE
                pictures += _flat(
                    next((part[k] for k in ("image", "path", "url") if k in part), None)
                )
            else:
                raise InputError(
                    f"a content part of type {part['type']!r}; 'text' and 'image' are allowed"
                )
        if message["role"] == "assistant":
            text += TOKENS[END]
    return text, pictures
