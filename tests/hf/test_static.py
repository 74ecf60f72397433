"""Compiled decoding: one graph for every prompt of a size, and what plain storage gives."""

import copy
import gc
import warnings
import weakref

import jaxtyping
import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.utils import counters
from transformers import CompileConfig, LogitsProcessorList

import families
import foveate
import gold
from families import VERSION, Family
from families.base import text
from foveate.hf.replayed import Replayed
from seam import candidates, follow, stage
from traces import Bomb, condition

FAMILIES = ("llama", "qwen2-vl", "llava-onevision", "qwen3-vl", "internvl")
METHOD = foveate.snapkv(keep=0.3, window=4)
SMALL = Family("small", "llama", lambda: text("llama", num_hidden_layers=1), full_layers=(0,))
graphs: list[torch.fx.GraphModule] = []


@pytest.fixture(autouse=True)
def fresh():
    """Nothing is compiled yet, and nothing stays compiled; checks of shapes would be, too."""
    torch._dynamo.reset()
    counters.clear()
    graphs.clear()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


def counting(graph, inputs):
    """A backend that counts what it is given, and runs it with autograd's decompositions."""
    graphs.append(graph)
    return lookup_backend("aot_eager")(graph, inputs)


def tracing(graph, inputs):
    """A backend that counts what it is given, and runs it as it is: it is sooner ready."""
    graphs.append(graph)
    return graph.forward


def config(backend=tracing):
    """How `generate` is told to compile, on this machine's processor too."""
    made = CompileConfig(backend=backend, mode=None, fullgraph=True)
    made._compile_all_devices = True
    return made


def cache(family, model, inputs, storage="static", method=METHOD):
    """A cache of that storage; text models are told which tokens count as visual."""
    mask = None if family.is_visual else candidates(family, inputs)
    return foveate.CompressedCache(model, method, visual_mask=mask, storage=storage)


def run(family, model, inputs, storage="static", **options):
    """Output and cache of a call."""
    made = cache(family, model, inputs, storage)
    return gold.generate(model, inputs, past_key_values=made, **options), made


def equal(ours, theirs, tolerance=gold.TOLERANCE):
    """Assert equal tokens, and logits within the tolerance."""
    assert torch.equal(ours.sequences, theirs.sequences)
    assert gold.distance(ours, theirs) <= tolerance


@pytest.mark.parametrize("name", FAMILIES)
def test_one_graph_serves_every_prompt_of_a_size_and_equals_dense_storage(name):
    family = families.BY_NAME[name]
    model = family.build()
    for seed in (0, 1):
        inputs = family.inputs(3, seed)
        dense, _ = run(family, model, inputs, "dense")
        output, made = run(family, model, inputs, compile_config=config(counting))
        equal(output, dense)
        report = made.report()
        assert {layer.storage for layer in report.layers} == {"static"}
        assert len(graphs) == 1, f"prompt {seed}"
    assert not counters["graph_break"]


def test_evicted_is_hidden_in_a_compiled_step():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(attention="eager"), family.inputs(3)
    output, made = run(family, model, inputs, compile_config=config())
    with gold.hiding(model, stage(family, model, inputs, made.report())):
        twin = gold.generate(model, inputs)
    equal(output, twin)
    assert gold.distance(output, gold.generate(model, inputs)) > 1e-2
    assert len(graphs) == 1


def test_another_size_compiles_once_more_and_then_any_size_does():
    model, inputs = SMALL.build(), SMALL.inputs(1)
    counts = []
    for tokens in (12, 40, 80, 150):
        dense, _ = run(SMALL, model, inputs, "dense", max_new_tokens=tokens)
        output, _ = run(SMALL, model, inputs, max_new_tokens=tokens, compile_config=config())
        equal(output, dense)
        counts.append(len(graphs))
    assert counts == [1, 2, 2, 2]


def test_buffers_of_the_same_size_are_told_apart_by_nothing():
    """Neither methods, nor lengths of prompts, nor what earlier turns left makes a new graph."""
    family, sizes = SMALL, []
    model = family.build()
    for seed, method in enumerate((METHOD, foveate.snapkv(keep=0.4, window=2))):
        inputs = family.encode(family.prompts(3, seed)[1:])
        made = cache(family, model, inputs, method=method)
        first = gold.generate(model, inputs, past_key_values=made, compile_config=config())
        sizes.append(made.layers[0].store.size)
        turn = follow(family, inputs, first.sequences, (3,))
        twin = cache(family, model, inputs, "dense", method)
        gold.generate(model, inputs, past_key_values=twin)
        equal(
            gold.generate(model, turn, past_key_values=made, compile_config=config()),
            gold.generate(model, turn, past_key_values=twin),
        )
        sizes.append(made.layers[0].store.size)
    assert sizes == [32, 64, 64, 64]
    assert len(graphs) == 2


def test_a_second_image_is_packed_and_decoded_in_compiled_steps():
    family = families.BY_NAME["internvl"]
    model, inputs = family.build(), family.inputs(3)
    found = []
    for storage, options in (("dense", {}), ("static", {"compile_config": config()})):
        made = cache(family, model, inputs, storage)
        first = gold.generate(model, inputs, past_key_values=made, **options)
        turn = follow(family, inputs, first.sequences, (3, ("image", 1), 4))
        again = copy.deepcopy(made)
        outputs = [gold.generate(model, turn, past_key_values=x, **options) for x in (made, again)]
        found.append((first, *outputs))
        for layer in made.compressed_layers:
            layer.store.check()
    for ours, theirs in zip(found[1], found[0], strict=True):
        equal(ours, theirs)
    assert 1 <= len(graphs) <= 2


@pytest.mark.slow
def test_inductor_compiles_it_too():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(3)
    dense, _ = run(family, model, inputs, "dense")
    with warnings.catch_warnings():  # of torch about itself
        warnings.simplefilter("ignore", DeprecationWarning)
        output, _ = run(family, model, inputs, compile_config=config("inductor"))
    equal(output, dense)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.parametrize("name", ["qwen2-vl", "gemma3"])
@pytest.mark.parametrize(
    "options",
    [{}, {"disable_compile": True}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2},
     {"num_return_sequences": 2, "do_sample": True}, {"prefill_chunk_size": 7}],
    ids=str,
)  # fmt: skip
def test_uncompiled_it_is_dense_storage_to_the_bit(name, options):
    family = families.BY_NAME[name]
    model, inputs = family.build(), family.inputs(1)
    torch.manual_seed(1)
    try:
        dense, _ = run(family, model, inputs, "dense", **options)
    except (ValueError, RuntimeError, foveate.UnsupportedModel) as error:
        pytest.skip(f"transformers {VERSION} with dense storage: {error}")
    torch.manual_seed(1)
    output, _ = run(family, model, inputs, **options)
    assert torch.equal(output.sequences, dense.sequences)
    if output.logits is not None:
        assert gold.same(output, dense)
    assert not graphs


def test_a_loop_over_forward_may_go_beyond_the_buffer():
    family = SMALL
    model, inputs = family.build(), family.inputs(1)
    caches = [cache(family, model, inputs, storage) for storage in ("dense", "static")]
    sizes = set()
    with torch.no_grad():
        for made in caches:
            model(**inputs, past_key_values=made)
        ids = torch.randint(5, 190, (200, 1, 1), generator=torch.Generator().manual_seed(2))
        for one in ids:
            dense, ours = (model(input_ids=one, past_key_values=x).logits for x in caches)
            assert torch.equal(dense, ours)
            sizes.add(caches[1].report().bytes_stored)
    assert len(sizes) == 2, "as it was at first, and once more"


def test_layers_that_are_not_ours_keep_generate_from_compiling_and_the_report_says_so():
    family = families.BY_NAME["gemma3"]
    model, inputs = family.build(), family.inputs(3)
    dense, _ = run(family, model, inputs, "dense")
    output, made = run(family, model, inputs, compile_config=config())
    assert gold.same(output, dense) and not graphs
    assert any("does not compile" in note for note in made.report().notes)
    plain = families.BY_NAME["llama"]
    _, made = run(plain, plain.build(), plain.inputs(1))
    assert not any("compile" in note for note in made.report().notes)


def test_a_replayed_prompt_is_followed_by_compiled_steps():
    replayed, (first, _) = Replayed(), (run(SMALL, SMALL.build(), SMALL.inputs(2)))
    model, inputs = SMALL.build(), SMALL.inputs(2)
    with replayed.around(model):
        for again in range(2):
            graphs.clear()
            output, made = run(SMALL, model, inputs, compile_config=config())
            equal(output, first)
            assert replayed.reused == again and not any(
                "compile" in note for note in made.report().notes
            )
    assert len(graphs) <= 1 and not counters["graph_break"]


def test_what_a_compiled_step_cannot_do_is_refused():
    model = families.BY_NAME["llama"].build()
    with pytest.raises(foveate.MethodError, match="storage='dense'"):
        foveate.CompressedCache(model, foveate.h2o(keep=0.3), storage="static")
    with pytest.raises(foveate.InputError, match="leave one of them out"):
        foveate.CompressedCache(model, METHOD, storage="static", quantized="fp8")


@pytest.mark.parametrize("steps", [None, 0, 3])
def test_nothing_is_left_on_the_model(steps):
    model, inputs = SMALL.build(), SMALL.inputs(1)
    untouched, before = gold.generate(model, inputs), condition(model)
    bomb = LogitsProcessorList([] if steps is None else [Bomb(steps)])
    options = {"logits_processor": bomb, "compile_config": config()}
    inside = []
    try:
        with foveate.compress(model, METHOD, storage="static"):
            inside.append(sorted(vars(model)))
            gold.generate(model, inputs, **options)
            inside.append(sorted(vars(model)))
    except KeyboardInterrupt:
        assert steps is not None
    assert inside[0] == inside[-1], "between calls there is nothing but the hooks"
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)


def test_what_transformers_has_compiled_for_the_model_stays():
    family = SMALL
    model, inputs = family.build(), family.inputs(1)
    gold.generate(model, inputs, cache_implementation="static", compile_config=config())
    compiled = model._compiled_call
    run(family, model, inputs, compile_config=config())
    assert model._compiled_call is compiled


def test_a_backend_that_fails_leaves_model_and_cache_usable():
    family = SMALL
    model, inputs = family.build(), family.inputs(1)
    dense, _ = run(family, model, inputs, "dense")
    untouched, before = gold.generate(model, inputs), condition(model)

    def failing(graph, example):
        raise MemoryError("while compiling")

    made = cache(family, model, inputs)
    with pytest.raises(Exception, match="while compiling"):
        gold.generate(model, inputs, past_key_values=made, compile_config=config(failing))
    made.check_usable()
    first = dense.sequences[:, : inputs["input_ids"].shape[1] + 1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    rest = {"input_ids": first, "attention_mask": mask, "max_new_tokens": gold.STEPS - 1}
    again = gold.generate(model, {}, past_key_values=made, **rest)
    assert torch.equal(again.sequences, dense.sequences)
    del made
    gc.collect()
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)


def test_compiled_code_keeps_no_model_alive():
    family = SMALL
    model, inputs = family.build(), family.inputs(1)
    _, made = run(family, model, inputs, compile_config=config())
    gone = weakref.ref(model)
    graphs.clear()
    del model, made
    gc.collect()
    assert gone() is None


def test_positions_that_count_on_from_the_kept_tokens_work_compiled():
    family = SMALL
    model, inputs = family.build(), family.inputs(3)
    method = foveate.aircache(keep=0.3, positions="compacted")
    found = []
    for storage, options in (("dense", {}), ("static", {"compile_config": config()})):
        made = cache(family, model, inputs, storage, method)
        found.append(gold.generate(model, inputs, past_key_values=made, **options))
    equal(found[1], found[0])


def test_the_report_tells_room_from_what_fills_it():
    family = families.BY_NAME["llama"]
    model, inputs = family.build(), family.inputs(3)
    (_, static), (_, dense) = (run(family, model, inputs, x) for x in ("static", "dense"))
    ours, theirs = static.report(), dense.report()
    held = {id(x.store.room.keys): x.store.room for x in static.compressed_layers}.values()
    assert ours.bytes_stored == sum(r.keys.nbytes + r.values.nbytes for r in held)
    assert ours.bytes_filled == theirs.bytes_filled < ours.bytes_stored
    assert ours.to_dict()["bytes_filled"] == ours.bytes_filled
    assert f"{ours.bytes_filled:,} bytes are filled" in str(ours)
    for layer in range(3):
        assert torch.equal(ours.kept(layer), theirs.kept(layer))
