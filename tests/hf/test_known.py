"""What the seam knows of a model reaches the methods: layers, rotation, whose table it is."""

from dataclasses import dataclass, field, replace

import pytest
import torch

import families
import foveate
import gold
from foveate.calibration.tables import save_table
from foveate.score import KeyNorm
from foveate.score.expected import angles, turned
from seam import compressed, kept, unpadded

FAMILIES = pytest.mark.parametrize(
    "family", [families.BY_NAME[name] for name in ("qwen2-vl", "internvl")], ids=str
)


@FAMILIES
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("infinipotv", {"pooling": "adaptive"}),
        ("expected", {"future": 9}),
        ("knorm", {"skip_layers": 1}),
        ("mixkv+h2o", {}),
        ("mixkv+roco", {"importance": "none"}),
        ("mixkv+lookm", {}),
    ],
    ids=str,
)
def test_methods_that_ask_for_it_run_alike_padded_and_alone(family, name, options):
    model, inputs = family.build(), family.inputs(2)
    method = foveate.method(name, keep=0.4, **options)
    together, report = compressed(family, model, inputs, method)
    masks = kept(family, model, inputs, report)
    for row, prompt in enumerate(family.prompts(2)):
        lone = family.encode([prompt])
        alone, own = compressed(family, model, lone, method)
        for layer, mask in kept(family, model, lone, own).items():
            assert (unpadded(masks[layer], inputs, row) == mask[0]).all(), f"layer {layer}"
        difference = gold.logits(together)[:, row] - gold.logits(alone)[:, 0]
        assert difference.abs().max() <= gold.TOLERANCE


def test_a_table_of_redundancies_is_of_one_model(tmp_path):
    family = families.BY_NAME["internvl"]
    model = family.build()
    text = model.config.get_text_config()
    shape = {
        "layers": text.num_hidden_layers,
        "query_heads": text.num_attention_heads,
        "kv_heads": text.num_key_value_heads,
    }
    numbers = [[0.5] * shape["kv_heads"]] * shape["layers"]
    content = {"format": "foveate-redundancy", "version": 1, "model": "m", **shape}
    save_table(tmp_path / "r.json", {**content, "redundancy": numbers})
    given = {"keep": 0.4, "table": str(tmp_path / "r.json")}
    inputs = family.inputs(1)
    output, _ = compressed(family, model, inputs, foveate.mixkv(mix="offline", **given))
    half, _ = compressed(family, model, inputs, foveate.mixkv(keep=0.4, mix="half"))
    assert gold.same(output, half)
    save_table(
        tmp_path / "r.json",
        {**content, "layers": shape["layers"] + 1, "redundancy": [*numbers, numbers[0]]},
    )
    with pytest.raises(foveate.MethodError, match="and this model"):
        foveate.CompressedCache(model, foveate.mixkv(mix="offline", **given))


@dataclass(frozen=True)
class Probe:
    """A score that notes what it may look at."""

    seen: list = field(default_factory=list, compare=False)

    def rows(self, kinds):
        return kinds.valid

    def __call__(self, observation, tiers):
        self.seen.append(observation)
        return KeyNorm()(observation, tiers)


ROTATED = [
    name
    for name in families.BY_NAME
    if name not in ("deepseek-v3", "mistral", "mistral-sliding")  # refused, or not compressed
]


@pytest.mark.parametrize("name", ROTATED)
def test_turned_back_queries_are_those_before_rotation(name):
    """Behind the images at least, where positions in a grid count on by one."""
    family = families.BY_NAME[name]
    model, inputs = family.build(), family.inputs(1)
    probe, before, hooks = Probe(), {}, []

    def note(key):
        return lambda module, given, output: [before.setdefault(key, output.detach()), None][1]

    for path, module in model.named_modules():
        layer, _, name = path.rpartition(".self_attn.")
        if name in ("q_proj", "q_norm") and "vision" not in path:
            key = (int(layer.rpartition(".")[2]), name)
            hooks.append(module.register_forward_hook(note(key)))
    compressed(family, model, inputs, replace(foveate.knorm(keep=0.5), score=probe))
    for hook in hooks:
        hook.remove()
    assert probe.seen
    for x in probe.seen:
        T, D = x.queries.shape[2:]
        rotation, place = x.rotation, torch.arange(T)
        if rotation.grid:
            owner = next(module for module in model.modules() if "rope_deltas" in vars(module))
            place = place + int(owner.rope_deltas)
        turns = angles(-place, rotation.frequencies.double())
        found = turned(x.queries.double(), turns.cos(), turns.sin())
        wanted = before.get((x.layer, "q_norm"), before[x.layer, "q_proj"])
        if wanted.shape != x.queries.shape:  # heads behind tokens, or not apart yet
            wanted = wanted.reshape(1, T, -1, D).transpose(1, 2)
        last = int(x.kinds.visual[0].nonzero().max()) + 1 if rotation.grid else 0
        assert T > last
        torch.testing.assert_close(
            found[:, :, last:].float(), wanted[:, :, last:], rtol=1e-4, atol=1e-4
        )
