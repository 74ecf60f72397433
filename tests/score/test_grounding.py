"""Rows weighed by what later rows see in them, and attention that fluctuates."""

import numpy as np
import pytest
import torch

from foveate.errors import MethodError
from foveate.scope import All
from foveate.score import Fluctuation, Grounded
from foveate.score.fluctuation import deviation
from reference.dense import attention
from samples import kinds_of, observations


def test_text_that_is_looked_at_counts_more():
    x = observations(kinds_of("tt vvvvvv ttt"), layers=1)[0]
    ranking = Grounded()(x, All().tiers(x.kinds))
    a = attention(x.queries[0].numpy(), x.keys[0].numpy(), x.scaling).mean(0)
    u = [a[8:, 8].sum() / 3, a[9:, 9].sum() / 2, a[10, 10]]
    image = u[0] * a[8] + u[1] * a[9] + u[2] * a[10]
    np.testing.assert_allclose(ranking.scores[0, 1, 2:8], image[2:8], rtol=1e-5)
    np.testing.assert_allclose(ranking.scores[0, 0, :2], a[8:, :2].sum(0), rtol=1e-5)
    np.testing.assert_allclose(ranking.scores[0, 0, 8:], a[8:, 8:].sum(0), rtol=1e-5)
    assert float(ranking.stats["mass"]) == pytest.approx(a[8:, 2:8].sum(), rel=1e-6)
    assert ranking.stats["window"] == 3 and ranking.stats["fallback"] == 0


def test_without_text_behind_the_image_the_image_observes():
    x = observations(kinds_of("tt" + "v" * 40, "t" * 42), layers=1)[0]
    ranking = Grounded()(x, All().tiers(x.kinds))
    assert ranking.stats["fallback"].tolist() == [1, 0]
    assert ranking.stats["window"].tolist() == [32, 42]
    assert ranking.stats["mass"][0] > 0 and ranking.stats["mass"][1] == 0


def test_deviations_are_numbers_where_rounding_is_all_there_is():
    total = torch.tensor([0.3, 0.1 + 1e-9, 0.0, 0.6, 2.0])
    count = torch.tensor([3.0, 1.0, 0.0, 2.0, 4.0])
    square = torch.tensor([0.03, 0.01 - 1e-9, 0.0, 0.26, 1.5])
    found = deviation(total, square, count)
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3:].tolist() == pytest.approx([0.2, 0.125**0.5])


def test_fluctuation_knows_how_many_rows_see_a_token():
    x = observations(kinds_of("pp ttt vvv tt", "tttttttttt"), layers=1)[0]
    ranking = Fluctuation(0.4)(x, All(2, 1).tiers(x.kinds))
    assert ranking.state["count"][0, 1].tolist() == [8, 8, *range(8, 0, -1)]
    assert ranking.quota.share == 0.4 and ranking.quota.scores[..., -1].eq(0).all()
    assert not ranking.scores[0, :, :2].any()
    sums = ranking.state["sum"].sum(-1)
    torch.testing.assert_close(sums, torch.tensor([[8.0, 8.0], [10.0, 10.0]]))
    assert (ranking.state["square"] <= ranking.state["sum"]).all()
    assert Fluctuation().rows(x.kinds).equal(x.kinds.valid)
    with pytest.raises(MethodError, match=r"spread=1\.5"):
        Fluctuation(1.5)
