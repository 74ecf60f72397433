"""The embedded vision-language model: reads small documents, answers from them, ships with us."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from foveate.tiny.documents import Document, Question, document
    from foveate.tiny.processor import Processor

__all__ = ["CHECKPOINT", "Document", "Question", "document", "load"]
CHECKPOINT = Path(__file__).with_name("checkpoint")


def load(
    device: "str | torch.device" = "cpu", dtype: "torch.dtype | None" = None
) -> "tuple[Qwen3VLForConditionalGeneration, Processor]":
    """The trained model in evaluation mode (float32 unless told otherwise) and its processor."""
    from foveate.tiny.weights import load as load_weights

    return load_weights(CHECKPOINT, device, dtype)


def __getattr__(name: str) -> Any:
    if name not in ("Document", "Question", "document"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from foveate.tiny import documents

    return getattr(documents, name)
