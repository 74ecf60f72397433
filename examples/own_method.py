"""A method of one's own: another budget and another score, put together from parts."""

from dataclasses import replace

import torch

import foveate

# Parts of presets can be exchanged: AirCache's choice of tokens with an even budget over layers.
aircache = foveate.aircache(keep=0.25)
even = replace(aircache, budget=foveate.random(keep=0.25).budget)
print(even)

# Plans need no model, only tensors: here 2 layers, and 60 image tokens before 11 text tokens.
torch.manual_seed(0)
kinds = torch.tensor([[1] * 60 + [0] * 11])
layers = [
    foveate.Observation(
        queries=torch.randn(1, 4, 71, 16),
        keys=torch.randn(1, 2, 71, 16),
        values=torch.randn(1, 2, 71, 16),
        kinds=foveate.TokenKinds.of(kinds),
        scaling=0.25,
        layer=index,
    )
    for index in range(2)
]
for name, method in (("AirCache", aircache), ("even", even)):
    plan = foveate.plan(method, layers)
    kept = foveate.apply(method, layers, plan)
    counts = [int(plan.keep[layer][0, 0, :60].sum()) for layer in range(2)]
    print(f"{name}: visual tokens kept per layer {counts}; keys {tuple(kept[0].keys(0, 0).shape)}")
