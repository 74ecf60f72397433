"""Compressed prompts for an unmodified vLLM: read here, decoded there. Experimental.

Nothing here imports vLLM, but for `connector`, which vLLM itself imports.
"""

from foveate.integrations.vllm.export import export
from foveate.integrations.vllm.handoff import Handoff, transfer_config
from foveate.integrations.vllm.language_model import export_language_model
from foveate.integrations.vllm.prefill import Prefilled, padded, prefill

__all__ = [
    "Handoff",
    "Prefilled",
    "export",
    "export_language_model",
    "padded",
    "prefill",
    "transfer_config",
]
