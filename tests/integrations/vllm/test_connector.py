"""The connector by itself: what it asks the scheduler for, writes into blocks, and logs."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from alone import EVEN
from foveate.errors import InputError
from foveate.integrations.vllm import connector as module
from foveate.integrations.vllm import export, prefill, transfer_config

BLOCK = 8


def settings(folder, **changes):
    """What the connector looks at, all of it as it should be."""
    transfer = transfer_config(folder) | changes
    config = SimpleNamespace(
        cache_config=SimpleNamespace(
            enable_prefix_caching=changes.get("prefix", False), block_size=BLOCK
        ),
        kv_transfer_config=SimpleNamespace(
            **transfer,
            get_from_extra_config=transfer["kv_connector_extra_config"].get,
        ),
        parallel_config=SimpleNamespace(world_size=changes.get("world_size", 1)),
        speculative_config=changes.get("speculative"),
        model_config=SimpleNamespace(dtype=torch.float32),
    )
    return config, None, SimpleNamespace(kv_cache_groups=changes.get("groups", [0]))


class Layer:
    """A layer of vLLM that notes what is written."""

    num_kv_heads, head_size = 2, 32

    def __init__(self):
        self.kv_cache, self.impl, self.written = torch.zeros(1), self, None

    def do_kv_cache_update(self, layer, keys, values, cache, slots):
        assert layer is self and cache is self.kv_cache
        self.written = keys, values, slots


@pytest.fixture
def handoff(place):
    """A file of twelve tokens."""
    here = place("llava-1.5")
    (made,) = export(
        prefill(here.model, here.family.inputs(1), EVEN["snapkv"]), here.handed, name="unit"
    )
    return made


@pytest.fixture
def log(monkeypatch):
    """What is logged as an error."""
    lines = []
    monkeypatch.setattr(module.logger, "error", lambda text, *parts: lines.append(text % parts))
    return lines


def request(handoff, **changes):
    """A request as the scheduler knows it."""
    asked = {**handoff.parameters()["foveate"], **changes}
    return SimpleNamespace(
        request_id="r",
        num_prompt_tokens=len(handoff.prompt()),
        kv_transfer_params={"foveate": asked},
        sampling_params=SimpleNamespace(prompt_logprobs=changes.get("prompt_logprobs")),
        skip_reading_prefix_cache=True,
    )


def step(connector, asking, layers, blocks=(5, 2, 9)):
    """One step of vLLM with one request, from the scheduler to the worker."""
    connector.on_new_request(asking)
    count, later = connector.get_num_new_matched_tokens(asking, 0)
    assert not later and not asking.skip_reading_prefix_cache
    allocated = SimpleNamespace(get_block_ids=lambda: (list(blocks),))
    connector.update_state_after_alloc(asking, allocated, count)
    connector.bind_connector_metadata(connector.build_connector_meta(None))
    assert not connector.build_connector_meta(None).loads
    others = {"model.embed": object(), "model.layers.0.mlp": SimpleNamespace(kv_cache=None)}
    named = {f"model.layers.{i}.self_attn.attn": layer for i, layer in layers.items()}
    connector.start_load_kv(SimpleNamespace(no_compile_layers={**others, **named}))
    return connector.get_block_ids_with_load_errors()


def test_keys_go_to_the_layers_that_their_names_say_and_to_the_blocks_of_the_request(handoff, log):
    connector = module.FoveateConnector(*settings(handoff.path.parent))
    layers = {index: Layer() for index in (2, 0, 1)}
    assert step(connector, request(handoff), layers) == set() and not log
    stored = load_file(handoff.path)
    for index, layer in layers.items():
        keys, values, slots = layer.written
        assert torch.equal(keys, stored[f"keys.{index}"])
        assert torch.equal(values, stored[f"values.{index}"])
        assert slots.tolist() == [*range(40, 48), *range(16, 20)]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"file": "../unit-0.safetensors"}, "the name of a file in the connector's folder"),
        ({"file": "other"}, "'other' is no file in the connector's folder"),
        ({"length": 11}, "stands for 12 tokens, and the request for 11"),
        ({"length": 13}, "a file of 13 tokens came for a prompt that has 13"),
        ({"prompt_logprobs": 1}, "prompt_logprobs came"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_log_says_why_a_request_fails(handoff, log, changes, complaint):
    connector = module.FoveateConnector(*settings(handoff.path.parent))
    layers = {index: Layer() for index in range(3)}
    assert step(connector, request(handoff, **changes), layers) == {5, 2}
    assert connector.get_block_ids_with_load_errors() == set()
    assert len(log) == 1 and log[0].startswith("foveate: request r fails") and complaint in log[0]
    assert all(layer.written is None for layer in layers.values())


def test_another_model_is_refused(handoff, log):
    connector = module.FoveateConnector(*settings(handoff.path.parent))
    assert step(connector, request(handoff), {0: Layer()}) == {5, 2}
    assert "unit-0.safetensors has 3 layers, and the model 1" in log[0]
    layers = {index: Layer() for index in range(3)}
    layers[0].head_size = 64
    assert step(connector, request(handoff), layers) == {5, 2}
    assert "keys.0 of unit-0.safetensors is [12, 2, 32]; the model has [12, 2, 64]" in log[1]


@pytest.mark.parametrize("parameters", [None, {}, {"do_remote_prefill": True}, "words"])
def test_other_requests_pass_by(handoff, parameters):
    connector = module.FoveateConnector(*settings(handoff.path.parent))
    other = request(handoff)
    other.kv_transfer_params = parameters
    connector.on_new_request(other)
    assert other.skip_reading_prefix_cache
    assert connector.get_num_new_matched_tokens(other, 0) == (0, False)
    connector.update_state_after_alloc(other, None, 0)
    assert not connector.build_connector_meta(None).loads


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"prefix": True}, "prefix caching is on"),
        ({"kv_load_failure_policy": "recompute"}, "'recompute' would read placeholders"),
        ({"world_size": 2}, "in one process"),
        ({"speculative": object()}, "a draft model"),
        ({"groups": [0, 1]}, "layers of several kinds"),
        ({"kv_connector_extra_config": {}}, "has no folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_would_be_wrong_are_refused(tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        module.FoveateConnector(*settings(tmp_path, **changes))
