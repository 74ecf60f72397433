"""The Hugging Face seam: the only folder that imports transformers' internals."""

from foveate.hf.cache import CompressedCache
from foveate.hf.session import Session, compress

__all__ = ["CompressedCache", "Session", "compress"]
