"""The side of vLLM: a KV connector that puts a file's keys and values where a request's belong.

vLLM imports this by the name in its kv_transfer_config, in its own environment. A request names its
file in kv_transfer_params; those that name none pass by. A file that cannot be used fails the one
request that names it, also where that request comes back after a preemption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
)
from vllm.logger import init_logger
from vllm.model_executor.models.utils import extract_layer_index

from foveate.errors import InputError
from foveate.integrations.vllm.handoff import PARAMETER, Handoff

__all__ = ["FoveateConnector"]

logger = init_logger("vllm.foveate")  # shown as vLLM's own messages are


@dataclass(frozen=True)
class Load:
    """One request of this step: its file, how many tokens of it, into which blocks."""

    request: str
    asked: Any  # as it came, to be judged where a failure fails this request alone
    tokens: int
    blocks: tuple[int, ...]
    refused: str = ""


@dataclass
class Loads(KVConnectorMetadata):
    """What the scheduler tells the worker before a step."""

    loads: list[Load] = field(default_factory=list)


class FoveateConnector(KVConnectorBase_V1):
    """Loads compressed prompts that `foveate.integrations.vllm.export` wrote."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        check_settings(vllm_config, kv_cache_config)
        folder = self._kv_transfer_config.get_from_extra_config("folder", None)
        if folder is None:
            raise InputError(
                "kv_connector_extra_config has no folder; take transfer_config(FOLDER)"
            )
        self.folder = Path(folder).resolve()
        self.block_size = int(vllm_config.cache_config.block_size)
        self.pending = Loads()
        self.failed: set[int] = set()

    # In the scheduler

    def on_new_request(self, request: Any) -> None:
        """Have what stands for stored tokens never computed, whatever the request asks for."""
        if asked_of(request) is not None:
            request.skip_reading_prefix_cache = False

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """Return for how many tokens the file stands; one at least is left to compute."""
        asked = asked_of(request)
        if asked is None:
            return 0, False
        room = request.num_prompt_tokens - 1
        length = asked.get("length") if isinstance(asked, Mapping) else None
        fits = type(length) is int and 0 < length <= room
        return (length if fits else room), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note what is to be loaded in this step, at the first time and after a preemption."""
        if num_external_tokens > 0:
            used = -(-num_external_tokens // self.block_size)
            ids = tuple(blocks.get_block_ids()[0][:used])
            refused = refusal(request, num_external_tokens)
            load = Load(request.request_id, asked_of(request), num_external_tokens, ids, refused)
            self.pending.loads.append(load)

    def build_connector_meta(self, scheduler_output: Any) -> Loads:
        """Return the loads of this step, and begin the next."""
        loads, self.pending = self.pending, Loads()
        return loads

    # In the worker

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Put every file of this step into its blocks, or note the blocks as failed."""
        for load in self._get_connector_metadata().loads:
            try:
                self._put(load, forward_context.no_compile_layers)
            except Exception as error:  # of one request: the others go on
                logger.error("foveate: request %s fails: %s", load.request, error)
                self.failed.update(load.blocks)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the blocks that were noted as failed, once."""
        failed, self.failed = self.failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Return at once: everything is loaded before a step begins."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **_: Any) -> None:
        """Save nothing."""

    def wait_for_save(self) -> None:
        """Return at once: nothing is saved."""

    def _put(self, load: Load, named: Mapping[str, Any]) -> None:
        """Write one file's keys and values into the blocks of its request."""
        if load.refused:
            raise InputError(load.refused)
        layers = {
            extract_layer_index(name): layer
            for name, layer in named.items()
            if isinstance(getattr(layer, "kv_cache", None), Tensor)
        }
        path = self._path(load.asked)
        tokens = torch.arange(load.tokens)
        blocks = torch.tensor(load.blocks)
        slots = blocks[tokens // self.block_size] * self.block_size + tokens % self.block_size
        with safe_open(str(path), framework="pt") as file:
            check_file(Handoff.of(path, file.metadata()), file, load.tokens, layers)
            for index, layer in layers.items():
                cache, dtype = layer.kv_cache, self._vllm_config.model_config.dtype
                keys, values = (
                    finite(file.get_tensor(f"{what}.{index}").to(cache.device, dtype), path)
                    for what in ("keys", "values")
                )
                layer.impl.do_kv_cache_update(layer, keys, values, cache, slots.to(cache.device))

    def _path(self, asked: Any) -> Path:
        """Return the file that a request names, or raise `InputError`."""
        name = asked.get("file") if isinstance(asked, Mapping) else None
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise InputError(
                f"kv_transfer_params[{PARAMETER!r}] is {asked!r:.200}; give what "
                "Handoff.parameters() returns: the name of a file in the connector's folder"
            )
        path = (self.folder / name).resolve()
        if path.parent != self.folder or not path.is_file():
            raise InputError(f"{name!r} is no file in the connector's folder; export it there")
        return path


def asked_of(request: Any) -> Any:
    """Return what a request says of a file, or None if it says nothing."""
    parameters = request.kv_transfer_params
    return parameters.get(PARAMETER) if isinstance(parameters, Mapping) else None


def refusal(request: Any, tokens: int) -> str:
    """Return why a request fails whatever is in its file, or nothing."""
    if getattr(request.sampling_params, "prompt_logprobs", None) is not None:
        return "prompt_logprobs came, but what stands for stored tokens is no text"
    asked = asked_of(request)
    if isinstance(asked, Mapping) and asked.get("length") != tokens:
        return (
            f"a file of {asked.get('length')!r:.50} tokens came for a prompt that has "
            f"{request.num_prompt_tokens}; give Handoff.prompt(), which is longer"
        )
    return ""


def check_settings(vllm_config: Any, kv_cache_config: Any) -> None:
    """Raise `InputError` for settings under which answers would be wrong."""
    if vllm_config.cache_config.enable_prefix_caching:
        raise InputError(
            "prefix caching is on, and would take all placeholders for the same prompt; start "
            "vLLM with enable_prefix_caching=False (--no-enable-prefix-caching)"
        )
    if vllm_config.kv_transfer_config.kv_load_failure_policy != "fail":
        raise InputError(
            "kv_load_failure_policy='recompute' would read placeholders as text; take 'fail', as "
            "transfer_config(FOLDER) does"
        )
    if vllm_config.parallel_config.world_size > 1:
        raise InputError("files hold all heads and layers; start vLLM in one process (no TP or PP)")
    if vllm_config.speculative_config is not None:
        raise InputError("a draft model would have no keys of the prompt; leave it out")
    if kv_cache_config is not None and len(kv_cache_config.kv_cache_groups) != 1:
        raise InputError("this model has layers of several kinds; all have to be full attention")


def check_file(handoff: Handoff, file: Any, tokens: int, layers: Mapping[int, Any]) -> None:
    """Raise `InputError` for a file of another prompt length or another model."""
    if handoff.length != tokens:
        raise InputError(
            f"{handoff.path.name} stands for {handoff.length} tokens, and the request for "
            f"{tokens}; give Handoff.prompt() and Handoff.parameters() of the same file"
        )
    if len(layers) != handoff.layers:
        raise InputError(
            f"{handoff.path.name} has {handoff.layers} layers, and the model {len(layers)}"
        )
    for index, layer in layers.items():
        wanted = [tokens, layer.num_kv_heads, layer.head_size]
        for name in (f"keys.{index}", f"values.{index}"):
            found = list(file.get_slice(name).get_shape())
            if found != wanted:
                raise InputError(
                    f"{name} of {handoff.path.name} is {found}; the model has {wanted}"
                )


def finite(part: Tensor, path: Path) -> Tensor:
    """Return numbers that are all finite: blocks are used again, and others must not find NaNs."""
    if not bool(torch.isfinite(part).all()):
        raise InputError(f"{path.name} holds numbers that are not finite in {part.dtype}")
    return part
