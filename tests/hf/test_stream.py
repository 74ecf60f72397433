"""A prompt that streams ends as one that is held whole, bit for bit, and never holds much."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import cache_utils

import families
import foveate
import gold
from families.base import Family, text
from foveate.cache.ledger import LAZY
from foveate.reduce import Evict, Merge
from seam import candidates, check_same, follow

NAMES = ("qwen2-vl", "llava-onevision", "llama", "gemma3", "qwen3.5")
LAYERS = 8
WINDOW = {"window": 4}
METHODS = {
    "aircache": foveate.aircache(keep=0.2),
    "aircache-5%": foveate.aircache(keep=0.05),
    "aircache-strength": foveate.aircache(keep=0.2, budget="strength"),
    "prefixkv": foveate.prefixkv(keep=0.4),
    "vlcache": foveate.vlcache(keep=0.4),
    "cake": foveate.cake(keep=0.4, **WINDOW),
    "adakv": foveate.adakv(keep=0.4, **WINDOW),
    "mixkv+adakv": foveate.mixkv(0.4, host="adakv", **WINDOW),
    "pyramidkv": foveate.pyramidkv(keep=0.4, beta=4, **WINDOW),
    "sparsemm": foveate.sparsemm(keep=0.4, **WINDOW),
    "foveate": foveate.foveate(keep=0.3),
    "h2o": foveate.h2o(keep=0.4),
    "roco": foveate.roco(keep=0.4, newest=4, sinks=2),
    "infinipotv": foveate.infinipotv(keep=0.4),
    "elastic": foveate.elastic(keep=0.4),
    "lookm": foveate.lookm(keep=0.4),
    "lookm-evicts": foveate.lookm(keep=0.4, merge="none"),
}
WHOLE = ("elastic", "lookm")  # what goes is merged into what stays
ALL = pytest.mark.parametrize("name", METHODS)
BATCHES = pytest.mark.parametrize("batch", [1, 3])


def deep(name: str, layers: int = LAYERS) -> Family:
    """The family with more layers, kinds of layers repeated."""
    family = families.BY_NAME[name]
    family.require()

    def settings():
        made = copy.deepcopy(family.settings())
        config = made.get("text_config", made)
        times = -(-layers // config["num_hidden_layers"])
        config["num_hidden_layers"] = layers
        if "layer_types" in config:
            config["layer_types"] = (config["layer_types"] * times)[:layers]
        return made

    config = settings()
    kinds = config.get("text_config", config).get("layer_types", ["full_attention"] * layers)
    full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    return replace(family, settings=settings, full_layers=full)


def cache_for(family, model, inputs, method, **options):
    """A cache; text models are told what is visual."""
    mask = None if family.is_visual else candidates(family, inputs)
    return foveate.CompressedCache(model, method, visual_mask=mask, **options)


def both(family, model, inputs, method, run, **options):
    """Run with two caches, one that streams and one that does not; return caches and results."""
    caches = [
        cache_for(family, model, inputs, method, stream=stream, **options)
        for stream in (True, False)
    ]
    return caches, [run(cache) for cache in caches]


@pytest.mark.parametrize("family", NAMES)
@BATCHES
@ALL
def test_streamed_is_two_pass(family, batch, name):
    family = deep(family)
    model, inputs = family.build(), family.inputs(batch)

    def run(cache):
        with torch.no_grad():
            return model(**inputs, past_key_values=cache).logits

    caches, logits = both(family, model, inputs, METHODS[name], run)
    assert torch.equal(*logits)
    check_same(caches)
    streamed, whole = (cache.report() for cache in caches)
    assert len(streamed.held) == len(whole.held) == len(family.full_layers)
    assert streamed.bytes_peak <= whole.bytes_peak
    assert (streamed.held == whole.held) == (name in WHOLE)
    assert any("merged" in note for note in streamed.notes) == (name in WHOLE)
    assert not any("held whole" in note for note in whole.notes)


def held_by(cache) -> int:
    """Bytes of the storages behind everything that our layers hold, found by looking."""
    found = {}
    for layer in cache.compressed_layers:
        parts = [layer.store.keys, layer.store.values]
        if layer.loose is not None:
            parts += [layer.loose.keys, layer.loose.values]
        for part in parts:
            if part is not None:
                found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    return sum(found.values())


def curve(family, model, inputs, method, **options):
    """What is held after every compressed decoder layer, by looking, and the cache."""
    cache, seen = cache_for(family, model, inputs, method, **options), []
    blocks = [x for x in model.modules() if type(x).__name__.endswith("DecoderLayer")]
    owners = [block for i, block in enumerate(blocks) if i in family.full_layers]
    hooks = [x.register_forward_hook(lambda *_: seen.append(held_by(cache))) for x in owners]
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    for hook in hooks:
        hook.remove()
    return tuple(seen), cache


SLACK = {"aircache": 0.5}  # of the final size, on top of what waits for a trim; others: none


@pytest.mark.parametrize(
    "name", ["aircache", "aircache-strength", "prefixkv", "cake", "vlcache", "adakv", "h2o"]
)
def test_little_is_held_at_any_time(name):
    """At most the final size and one layer; a tenth waits for a trim, a token a layer rounds."""
    family = deep("llava-onevision", 16)
    model, inputs = family.build(), family.inputs(1)
    method = METHODS[name]
    looked, cache = curve(family, model, inputs, method)
    report = cache.report()
    assert looked == report.held
    token = 2 * 2 * 8 * 4  # heads, keys and values, width, bytes
    final, layer = held_by(cache), inputs["input_ids"].shape[1] * token
    room = (final + 16 * token) * (1 + SLACK.get(name, 0)) / (1 - LAZY)
    assert max(looked) <= room + layer
    copies = 2 * max(x.bytes_stored for x in report.layers)  # of one layer, in passing
    assert report.bytes_peak <= room + layer + copies
    if name not in SLACK:
        assert looked[-1] <= room, "what is held behind the last layer, before the choice"
    whole, two_pass = curve(family, model, inputs, method, stream=False)
    assert whole == tuple(layer * (i + 1) for i in range(16)) == two_pass.report().held
    assert whole[-1] > 1.3 * (room + layer), "two passes hold what would fail above"


def test_the_peak_is_that_of_one_moment():
    """Layers that are largest at different times do not add up."""
    family = deep("llava-onevision", 16)
    model, inputs = family.build(), family.inputs(1)
    _, cache = curve(family, model, inputs, foveate.aircache(keep=0.1))
    report = cache.report()
    assert max(report.held) <= report.bytes_peak < sum(x.bytes_peak for x in report.layers) / 3
    before = report.bytes_peak
    gold.generate(model, inputs, past_key_values=None)
    cache.reset()
    assert cache.turn.account.total == cache.turn.account.peak == 0
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    assert cache.report().bytes_peak == before


@pytest.mark.parametrize("storage", ["dense", "ragged", "auto", "static"])
@pytest.mark.parametrize("name", ["aircache", "adakv", "sparsemm"])
@BATCHES
def test_every_storage_gets_the_same(storage, name, batch):
    family = deep("qwen2-vl", 5)
    model, inputs = family.build(), family.inputs(batch)

    def run(cache):
        return gold.generate(model, inputs, past_key_values=cache)

    caches, outputs = both(family, model, inputs, METHODS[name], run, storage=storage)
    assert gold.same(*outputs)
    check_same(caches)
    assert caches[0].report().held < caches[1].report().held


@pytest.mark.skipif(
    not hasattr(cache_utils, "Fp8QuantizedLayer"), reason="this transformers stores no fp8"
)
def test_quantized_survivors_are_the_same():
    family = deep("llava-onevision", 5)
    model, inputs = family.build(), family.inputs(3)

    def run(cache):
        first = gold.generate(model, inputs, past_key_values=cache)
        turn = follow(family, inputs, first.sequences, (4, ("image", 1), 5))
        return gold.generate(model, turn, past_key_values=cache)

    caches, outputs = both(family, model, inputs, METHODS["aircache"], run, quantized="fp8")
    assert gold.same(*outputs)
    check_same(caches)


@pytest.mark.parametrize("name", ["aircache", "adakv", "prefixkv", "lookm-evicts"])
@pytest.mark.parametrize("storage", ["dense", "auto"])
@BATCHES
def test_a_second_turn_with_an_image(name, storage, batch):
    """The prefix of the first turn stays as it is; methods without decoding compress again."""
    family = deep("llava-onevision", 5)
    model, inputs = family.build(), family.inputs(batch)

    def run(cache):
        first = gold.generate(model, inputs, past_key_values=cache)
        turn = follow(family, inputs, first.sequences, (4, ("image", 1), 5))
        return gold.generate(model, turn, past_key_values=cache)

    caches, outputs = both(family, model, inputs, METHODS[name], run, storage=storage)
    assert gold.same(*outputs)
    check_same(caches)


@pytest.mark.parametrize("name", ["h2o", "roco", "prefixkv", "elastic"])
@BATCHES
def test_eviction_while_decoding_goes_on_from_the_same_sums(name, batch):
    family = deep("llama", 5)
    model, inputs = family.build(), family.inputs(batch)
    method = METHODS[name]
    method = replace(method, when=replace(method.when, every=3)) if name != "elastic" else method

    def run(cache):
        return gold.generate(model, inputs, past_key_values=cache, max_new_tokens=12)

    caches, outputs = both(family, model, inputs, method, run)
    assert gold.same(*outputs)
    check_same(caches)


@pytest.mark.parametrize("storage", ["dense", "ragged", "auto"])
@pytest.mark.parametrize("keep", [0.95, 0.99])
def test_layers_that_lose_padding_alone_are_left_as_they_are(keep, storage):
    family = deep("llama", 5)
    model, inputs = family.build(), family.inputs(3)
    method = foveate.vlcache(keep=keep)

    def run(cache):
        return gold.generate(model, inputs, past_key_values=cache)

    caches, outputs = both(family, model, inputs, method, run, storage=storage)
    assert gold.same(*outputs)
    check_same(caches)


class Reserved:
    """A score that takes some tokens out of the choice, in the first layers alone."""

    def __init__(self, score, tier):
        self.score, self.tier = score, tier

    def rows(self, kinds):
        return self.score.rows(kinds)

    def __call__(self, observation, tiers):
        some = (tiers == 0) & ((tiers == 0).cumsum(-1) <= 10)
        if observation.layer < 3:
            tiers = tiers.masked_fill(some, self.tier)
        return self.score(observation, tiers)


@pytest.mark.parametrize("tier", [2, 3])
def test_layers_with_different_tokens_to_choose_from_are_refused_or_the_same(tier):
    family = deep("llama", 5)
    model, inputs = family.build(), family.inputs(1)
    method = foveate.snapkv(keep=0.4, window=4)
    method = replace(method, score=Reserved(method.score, tier))

    def run(cache):
        return gold.generate(model, inputs, past_key_values=cache)

    with pytest.raises(foveate.UnsupportedModel, match=r"other tokens to choose.*stream=False"):
        run(cache_for(family, model, inputs, method))
    whole = cache_for(family, model, inputs, method, stream=False)
    run(whole)
    assert whole.report().bytes_stored > 0


@pytest.mark.parametrize("cut", [1, 9])
def test_a_prompt_in_chunks_is_trimmed_in_the_last_one(cut):
    family = deep("llama")
    model, inputs = family.build(), family.inputs(1)
    T = inputs["input_ids"].shape[1]

    def run(cache):
        cache.expect(T)
        held = []
        with torch.no_grad():
            for part in (slice(0, T - cut), slice(T - cut, T)):
                mask = inputs["attention_mask"][:, : part.stop]
                ids = inputs["input_ids"][:, part]
                model(input_ids=ids, attention_mask=mask, past_key_values=cache)
                held.append(cache.report().held)
        return held

    caches, (mine, theirs) = both(family, model, inputs, METHODS["aircache"], run)
    check_same(caches)
    assert mine[0] == theirs[0], "nothing is ranked in the first chunk"
    assert mine[1][0] <= theirs[1][0] and mine[1][-1] < mine[1][0], "it falls layer by layer"


def test_drafts_behind_the_prompt_stay():
    family = deep("llama")
    model, inputs = family.build(), family.inputs(1)
    T = inputs["input_ids"].shape[1] - 3

    def run(cache):
        cache.expect(T)
        with torch.no_grad():
            return model(**inputs, past_key_values=cache).logits

    caches, logits = both(family, model, inputs, METHODS["aircache"], run)
    assert torch.equal(*logits)
    check_same(caches)
    store = caches[0].compressed_layers[0].store
    assert store.seen == T + 3 and store.logical()[0, 0, -3:].tolist() == [T, T + 1, T + 2]


def test_compacted_positions():
    family = deep("llama", 5)
    model, inputs = family.build(), family.inputs(3)
    method = foveate.aircache(keep=0.2, positions="compacted")

    def run(cache):
        return gold.generate(model, inputs, past_key_values=cache)

    caches, outputs = both(family, model, inputs, method, run)
    assert gold.same(*outputs)
    check_same(caches)


def shared_layers() -> Family:
    """Gemma 3n: its last layers attend over the keys of an earlier one, after that is trimmed."""
    kinds = ["sliding_attention", "full_attention"] * 4
    more = {"altup_num_inputs": 2, "altup_active_idx": 0, "laurel_rank": 4}
    more |= {"vocab_size_per_layer_input": families.VOCAB, "hidden_size_per_layer_input": 8}

    def settings():
        return text(
            "gemma3n_text",
            num_hidden_layers=8,
            layer_types=kinds,
            sliding_window=9,
            num_kv_shared_layers=2,
            activation_sparsity_pattern=[0.0] * 8,
            intermediate_size=[52] * 8,
            **more,
        )

    return Family("gemma3n", "gemma3n_text", settings, full_layers=(1, 3, 5))


@BATCHES
@pytest.mark.parametrize("name", ["aircache", "adakv"])
def test_layers_that_share_keys_see_the_whole_prompt(batch, name):
    family = shared_layers()
    model, inputs = family.build(), family.inputs(batch)
    if len(foveate.CompressedCache(model, METHODS[name]).compressed_layers) != 3:
        pytest.skip("this transformers gives a cache to layers that share")
    full = gold.generate(model, inputs)

    def run(cache):
        return gold.generate(model, inputs, past_key_values=cache)

    caches, outputs = both(family, model, inputs, METHODS[name], run)
    assert gold.same(*outputs)
    check_same(caches)
    assert torch.equal(outputs[0].logits[0], full.logits[0]), "the first token saw everything"
    assert caches[0].report().held < caches[1].report().held


def drop_last_layer(model) -> None:
    """Let the model run without its last decoder layer, which its config still counts."""
    owner = next(x for x in model.modules() if hasattr(x, "layers") and hasattr(x, "embed_tokens"))
    owner.layers = owner.layers[:-1]


def test_fewer_layers_than_the_config_says_are_no_wrong_budget():
    family = deep("llama")
    model, inputs = family.build(), family.inputs(1)
    drop_last_layer(model)
    whole = cache_for(family, model, inputs, METHODS["aircache"], stream=False)
    gold.generate(model, inputs, past_key_values=whole)
    cache = cache_for(family, model, inputs, METHODS["aircache"])
    with pytest.raises(foveate.UnsupportedModel, match=r"\[7\] did not attend.*stream=False"):
        gold.generate(model, inputs, past_key_values=cache)
    with pytest.raises(foveate.CacheError, match="use a new cache"), torch.no_grad():
        model(**inputs, past_key_values=cache)
    cache = cache_for(family, model, inputs, METHODS["lookm"])
    gold.generate(model, inputs, past_key_values=cache)


@pytest.mark.parametrize("where", [0, 3, 7])
def test_a_pass_that_fails_half_way_leaves_no_half_trimmed_cache(where):
    family = deep("llama")
    model, inputs = family.build(), family.inputs(1)
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.05))
    blocks = [x for x in model.modules() if type(x).__name__.endswith("DecoderLayer")]

    def explode(*_):
        raise MemoryError("behind this layer")

    hook = blocks[where].mlp.register_forward_pre_hook(explode)
    with pytest.raises(MemoryError):
        gold.generate(model, inputs, past_key_values=cache)
    hook.remove()
    assert cache.turn.stream is None
    assert all(layer.loose is None for layer in cache.compressed_layers)
    with pytest.raises(foveate.CacheError, match="use a new cache"), torch.no_grad():
        model(**inputs, past_key_values=cache)
    cache.reset()
    fresh = cache_for(family, model, inputs, foveate.aircache(keep=0.05))
    outputs = [gold.generate(model, inputs, past_key_values=x) for x in (cache, fresh)]
    assert gold.same(*outputs)
    check_same([cache, fresh])


def test_a_budget_that_raises_in_the_middle_leaves_no_usable_cache():
    family = deep("llama")
    model, inputs = family.build(), family.inputs(1)
    method = METHODS["aircache"]
    method = replace(method, budget=replace(method.budget, by=("unheard",)))
    for stream in (True, False):
        cache = cache_for(family, model, inputs, method, stream=stream)
        with pytest.raises(foveate.MethodError, match="unheard"):
            gold.generate(model, inputs, past_key_values=cache)
        with pytest.raises(foveate.CacheError), torch.no_grad():
            model(**inputs, past_key_values=cache)


class Unbounded:
    """A budget of one's own, without bounds."""

    keep = 0.2

    def __call__(self, rankings):
        return METHODS["aircache"].budget(rankings)


class LateBounds(Unbounded):
    """The same, which knows its counts when all layers are there."""

    def bounds(self, rankings, layers):
        return self(rankings) if len(rankings) == layers else None


def test_what_cannot_be_trimmed_is_held_and_said():
    family = deep("llama")
    model, inputs = family.build(), family.inputs(1)
    for budget in (Unbounded(), LateBounds()):
        method = replace(METHODS["aircache"], budget=budget)
        looked, cache = curve(family, model, inputs, method)
        assert looked[:-1] == tuple(looked[0] * (i + 1) for i in range(LAYERS - 1))
        assert any("no bounds" in note for note in cache.report().notes)
        cache.reset()
        assert not any("no bounds" in note for note in cache.report().notes)
    assert Evict().evicts and Merge(0.0).evicts and not Merge(0.5).evicts


def test_a_session_passes_the_switch_on():
    family = deep("llava-onevision", 5)
    model, inputs = family.build(), family.inputs(1)
    reports = []
    for stream in (True, False):
        with foveate.compress(model, "aircache", keep=0.2, stream=stream) as session:
            gold.generate(model, inputs)
        reports.append(session.report)
    assert reports[0].bytes_stored == reports[1].bytes_stored
    assert reports[0].held < reports[1].held
    assert reports[0].to_dict()["held"] == list(reports[0].held)
