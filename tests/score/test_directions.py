"""Directions of keys, tile by tile, are those of plain loops, whatever lies at other positions."""

import pytest
import torch

from foveate.score import directions


@pytest.mark.parametrize("tile", [1, 2 * 3 * 5 * 4, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tiles_equal_loops(monkeypatch, tile, dtype):
    monkeypatch.setattr(directions, "TILE_ELEMENTS", tile)
    rng = torch.Generator().manual_seed(6)
    keys = torch.randn(2, 3, 9, 5, generator=rng).to(dtype)
    among = torch.rand(2, 9, generator=rng) < 0.6
    keys[0, :, 4], among[0, 4] = torch.nan, False
    keys[1, 2, 1], among[1, 1] = 0, True
    mean = directions.unit_mean(keys, among)
    towards = torch.randn(2, 3, 5, generator=rng)
    found = directions.along(keys, towards)
    for b in range(2):
        for h in range(3):
            unit = [k.float() / k.float().norm().clamp(min=1e-12) for k in keys[b, h]]
            wanted = sum(u for u, there in zip(unit, among[b], strict=True) if there)
            torch.testing.assert_close(mean[b, h], wanted / int(among[b].sum()))
            for t, u in enumerate(unit):
                product = (u * towards[b, h]).sum()
                torch.testing.assert_close(found[b, h, t], product, equal_nan=True)
