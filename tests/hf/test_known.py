"""What the seam knows of a model reaches the methods: its number of layers and its rotation."""

import pytest

import families
import foveate
import gold
from seam import compressed, kept, unpadded

FAMILIES = pytest.mark.parametrize(
    "family", [families.BY_NAME[name] for name in ("qwen2-vl", "internvl")], ids=str
)


@FAMILIES
@pytest.mark.parametrize(
    ("name", "options"), [("infinipotv", {"pooling": "adaptive"}), ("expected", {"future": 9})]
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
