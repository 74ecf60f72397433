"""What is written for vLLM: a plain language model that reads it goes on as the cache would."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, cache_utils

import foveate
from alone import EVEN, RAGGED, answers, continued, wide
from families import BY_NAME
from families.base import IMAGE, rope, text
from foveate.errors import CacheError, InputError, UnsupportedModel
from foveate.integrations.vllm import (
    Handoff,
    Prefilled,
    export,
    export_language_model,
    padded,
    prefill,
    transfer_config,
)

SHAPES = ("llava-1.5", "qwen2.5-vl")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model and its language model's folder, by the name of the family."""
    made = {}

    def get(name):
        if name not in made:
            model = wide(name).build()
            made[name] = model, export_language_model(model, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def agrees(model, language_model, inputs, method, handoffs):
    """Whether the files go on as the cache does, token by token."""
    tokens, logits = answers(model, inputs, method)
    for row, handoff in enumerate(handoffs):
        found, near = continued(language_model, handoff)
        torch.testing.assert_close(near, logits[row], rtol=1e-4, atol=1e-4)
        assert found == tokens[row].tolist()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("preset", EVEN)
def test_even_methods_go_on_as_they_would_have(models, tmp_path, name, preset):
    model, language_model = models(name)
    inputs, method = wide(name).inputs(3), EVEN[preset]
    handoffs = export(prefill(model, inputs, method), tmp_path)
    assert len(handoffs) == 3
    prompt = inputs["attention_mask"].sum(-1).tolist()
    assert all(handoff.length < whole for handoff, whole in zip(handoffs, prompt, strict=True))
    agrees(model, language_model, inputs, method, handoffs)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("preset", RAGGED)
def test_ragged_methods_go_on_once_they_are_padded(models, tmp_path, name, preset):
    model, language_model = models(name)
    inputs, method = wide(name).inputs(3), RAGGED[preset]
    with pytest.raises(InputError, match="pad='next-best'"):
        export(prefill(model, inputs, method), tmp_path)
    assert not list(tmp_path.iterdir())
    handoffs = export(prefill(model, inputs, method, pad="next-best"), tmp_path)
    agrees(model, language_model, inputs, padded(method), handoffs)


@pytest.mark.parametrize("name", ["llava-next", "llava-onevision", "qwen2-vl", "qwen3-vl", "llama"])
def test_families_go_on(tmp_path, name):
    family = wide(name)
    model, inputs, method = family.build(), family.inputs(1), foveate.snapkv(keep=12, window=4)
    language_model = export_language_model(model, tmp_path / "model")
    handoffs = export(prefill(model, inputs, method), tmp_path / "caches")
    assert handoffs[0].length == 12
    agrees(model, language_model, inputs, method, handoffs)


@pytest.mark.parametrize(
    "method",
    [foveate.full(), foveate.aircache(keep=5, budget="uniform", positions="compacted")],
    ids=["nothing evicted", "positions compacted"],
)
def test_positions_are_those_of_the_model(models, tmp_path, method):
    model, language_model = models("llava-1.5")
    inputs = wide("llava-1.5").inputs(3)  # rows are padded
    agrees(model, language_model, inputs, method, export(prefill(model, inputs, method), tmp_path))


def test_bfloat16_goes_on_within_its_rounding(tmp_path):
    family, method = wide("qwen2.5-vl"), EVEN["lookm"]
    model = family.build().to(torch.bfloat16)
    inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in family.inputs(3).items()}
    language_model = export_language_model(model, tmp_path / "model")
    handoffs = export(prefill(model, inputs, method), tmp_path / "caches")
    tokens, logits = answers(model, inputs, method)
    for row, handoff in enumerate(handoffs):
        assert handoff.dtype == "bfloat16"
        found, near = continued(language_model, handoff)
        same = next((i for i, x in enumerate(found) if x != tokens[row, i]), len(found))
        said, wanted = (x[: max(same - 1, 1)].float().log_softmax(-1) for x in (near, logits[row]))
        torch.testing.assert_close(
            said, wanted, rtol=0, atol=0.1
        )  # where tokens part, two are near


def test_pads_go_by_no_count(models, tmp_path):
    model, _ = models("llava-1.5")
    inputs = wide("llava-1.5").inputs(3)
    handoffs = export(prefill(model, inputs, foveate.full()), tmp_path)
    assert [x.length for x in handoffs] == inputs["attention_mask"].sum(-1).tolist()
    assert [x.position for x in handoffs] == [x.length for x in handoffs]


@pytest.mark.parametrize("storage", ["ragged", "auto", "static"])
def test_every_storage_gives_the_same_file(models, tmp_path, storage):
    model, _ = models("qwen2.5-vl")
    inputs, method = wide("qwen2.5-vl").inputs(3), EVEN["mixkv"]
    dense = prefill(model, inputs, method)
    cache = foveate.CompressedCache(model, method, storage=storage)
    model.generate(**inputs, past_key_values=cache, do_sample=False, max_new_tokens=1)
    other = Prefilled(cache, dense.first, dense.positions)
    for here, there in zip(export(dense, tmp_path), export(other, tmp_path), strict=True):
        torch.testing.assert_close(load_file(here.path), load_file(there.path))


def test_a_handoff_says_what_it_is_and_how_to_ask(models, tmp_path):
    model, _ = models("llava-1.5")
    inputs = wide("llava-1.5").inputs(1)
    (handoff,) = export(prefill(model, inputs, EVEN["snapkv"]), tmp_path, name="page")
    assert handoff.path.name == "page-0.safetensors"
    assert Handoff.read(handoff.path) == handoff
    assert handoff.nbytes == handoff.path.stat().st_size
    assert (handoff.layers, handoff.heads, handoff.width) == (3, 2, 32)
    stored = load_file(handoff.path)
    assert stored["keys.0"].shape == (handoff.length, 2, 32)
    parameters = {"foveate": {"file": "page-0.safetensors", "length": 12}}
    assert handoff.prompt() == [0] * 12 + [handoff.first]
    assert handoff.request() == {"prompt": handoff.prompt(), "kv_transfer_params": parameters}
    assert handoff.prompt(after=[5, 6], placeholder=7) == [7] * 12 + [5, 6]
    assert handoff.sampling_params_extra() == {"kv_transfer_params": parameters}
    with pytest.raises(InputError, match="nothing follows"):
        handoff.prompt(after=[])
    config = transfer_config(tmp_path)
    assert config["kv_connector_extra_config"] == {"folder": str(tmp_path)}
    assert json.loads(json.dumps(config)) == config


def test_files_that_are_none_of_ours_are_refused(models, tmp_path):
    model, _ = models("llava-1.5")
    inputs = wide("llava-1.5").inputs(1)
    (handoff,) = export(prefill(model, inputs, EVEN["snapkv"]), tmp_path)
    handoff.path.write_bytes(handoff.path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        Handoff.read(handoff.path)
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="has the format None"):
        Handoff.read(tmp_path / "other")
    header = {**handoff.to_metadata(), "handoff": "{}"}
    save_file({"x": torch.zeros(1)}, tmp_path / "other", header)
    with pytest.raises(InputError, match="the header of other"):
        Handoff.read(tmp_path / "other")
    with pytest.raises(InputError, match="cannot be read"):
        Handoff.read(tmp_path / "nowhere")


def test_what_does_not_fit_is_refused_by_name(models, tmp_path):
    model, _ = models("llava-1.5")
    inputs = wide("llava-1.5").inputs(1)
    with pytest.raises(InputError, match="evicts while decoding"):
        export(prefill(model, inputs, foveate.h2o(keep=12)), tmp_path)
    empty = foveate.CompressedCache(model, EVEN["snapkv"])
    with pytest.raises(CacheError, match="layer 0 holds nothing"):
        export(Prefilled(empty, torch.zeros(1), torch.zeros(1)), tmp_path)
    ready = prefill(model, inputs, EVEN["snapkv"])
    with pytest.raises(InputError, match=r"first tokens of the shape \(2,\)"):
        export(replace(ready, first=torch.zeros(2)), tmp_path)
    with pytest.raises(InputError, match="pad='zeros' is not known"):
        prefill(model, inputs, EVEN["snapkv"], pad="zeros")
    with pytest.raises(InputError, match=r"max_new_tokens=3 came.*give vLLM max_tokens"):
        prefill(model, inputs, EVEN["snapkv"], max_new_tokens=3)
    with pytest.raises(InputError, match=r"the name '\.\./page' is a path"):
        export(ready, tmp_path / "handed", name="../page")
    assert not list(tmp_path.iterdir())


def test_two_that_write_one_name_at_once_spoil_nothing(models, tmp_path, monkeypatch):
    model, _ = models("llava-1.5")
    ready = prefill(model, wide("llava-1.5").inputs(1), EVEN["snapkv"])
    written = []

    def save(tensors, path, metadata):
        written.append(path)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(sys.modules[export.__module__], "save_file", save)
    for _ in range(2):
        export(ready, tmp_path, name="page")
    assert len({*written}) == 2 and [x.name for x in tmp_path.iterdir()] == ["page-0.safetensors"]


SCALED = {
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_rotations_go_on(tmp_path, kind):
    changes = rope(rope_type=kind, **SCALED[kind])
    if "rope_scaling" in changes:
        changes["rope_scaling"] = {**changes["rope_scaling"], "type": kind}
    family = wide("llama")
    settings = family.settings() | changes
    model = replace(family, settings=lambda: settings).build()
    inputs, method = family.inputs(2), foveate.snapkv(keep=12, window=4)
    language_model = export_language_model(model, tmp_path / "model")
    handoffs = export(prefill(model, inputs, method), tmp_path / "caches")
    assert all(x.position != x.length for x in handoffs)
    agrees(model, language_model, inputs, method, handoffs)


@pytest.mark.skipif(not hasattr(cache_utils, "Fp8QuantizedLayer"), reason="no fp8 in this release")
def test_a_quantized_cache_is_refused(models, tmp_path):
    model, _ = models("llava-1.5")
    ready = prefill(model, wide("llava-1.5").inputs(1), EVEN["snapkv"])
    quantized = foveate.CompressedCache(model, EVEN["snapkv"], quantized="fp8")
    with pytest.raises(InputError, match="quantized to 'fp8'"):
        export(replace(ready, cache=quantized), tmp_path)


def test_models_that_do_not_fit_are_refused(tmp_path):
    family = BY_NAME["gemma3"]
    ready = prefill(family.build(), family.inputs(1), foveate.aircache(keep=5))
    with pytest.raises(UnsupportedModel, match="'gemma3_text' cannot be handed to vLLM; known: ll"):
        export(ready, tmp_path)
    with pytest.raises(UnsupportedModel, match="gemma3_text"):
        export_language_model(family.build(), tmp_path)


KINDS = ["full_attention", "sliding_attention", "full_attention"]
CHANGES = {
    "layers \\[1\\]": {
        "layer_types": KINDS, "use_sliding_window": True, "sliding_window": 9,
        "max_window_layers": 0,
    },
    "the kind 'dynamic'": rope(rope_type="dynamic", factor=2.0),
}  # fmt: skip


@pytest.mark.parametrize("complaint", CHANGES)
def test_layers_and_rotations_that_do_not_fit_are_refused(tmp_path, complaint):
    changes = dict(CHANGES[complaint])
    if "rope_scaling" in changes:
        changes["rope_scaling"] = {**changes["rope_scaling"], "type": "dynamic"}
    family = replace(
        BY_NAME["llama"], model_type="qwen2", settings=lambda: text("qwen2", **changes)
    )
    ready = prefill(family.build(), family.inputs(1), foveate.snapkv(keep=9, window=4))
    with pytest.raises(UnsupportedModel, match=complaint):
        export(ready, tmp_path)


def test_a_prompt_that_ends_with_an_image_is_refused(models):
    model, _ = models("qwen2.5-vl")
    family = wide("qwen2.5-vl")
    (prompt,) = family.prompts(1)
    end = max(i for i, token in enumerate(prompt.ids) if token == IMAGE) + 1
    inputs = family.encode([replace(prompt, ids=prompt.ids[:end])])
    with pytest.raises(InputError, match="ends with an image"):
        prefill(model, inputs, EVEN["snapkv"])


def test_a_tied_head_stays_tied(tmp_path):
    family = BY_NAME["llama"]
    family = replace(family, settings=lambda: text("qwen2", tie_word_embeddings=True))
    model = replace(family, model_type="qwen2").build()
    folder = export_language_model(model, tmp_path)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = family.inputs(1)["input_ids"]
    torch.testing.assert_close(alone(ids).logits, model(ids).logits)
