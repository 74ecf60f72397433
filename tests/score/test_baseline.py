"""Random, recency and constant scores."""

import torch

from foveate.scope import All
from foveate.score import Constant, Random, Recency
from samples import kinds_of, observations, only_row


def scores(score, observation):
    return score(observation, All().tiers(observation.kinds)).scores


def test_random_depends_on_seed_layer_head_and_position_alone():
    sample = observations(kinds_of("pppp" + "tvvvvvvt" * 2, "tvvvvvvt" * 2 + "tttt"), layers=2)
    first = scores(Random(1), sample[0])
    assert torch.equal(first[0, :, 4:], first[1, :, :16])
    assert torch.equal(first[0, :, 4:], scores(Random(1), only_row(sample[0], 0))[0])
    assert torch.equal(first, scores(Random(1), sample[0]))
    for other in (scores(Random(2), sample[0]), scores(Random(1), sample[1])):
        assert (first != other)[1].all()
    assert (first[1, 0] != first[1, 1]).all()


def test_random_is_even():
    sample = observations(kinds_of("v" * 4001), layers=1, D=2)
    numbers = scores(Random(7), sample[0])[0]
    assert numbers.min() >= 0 and numbers.max() <= 1
    for head in numbers:
        assert torch.histc(head, 10, 0, 1).min() > 330
    assert torch.corrcoef(numbers)[0, 1].abs() < 0.06
    assert torch.corrcoef(torch.stack([numbers[0, 1:], numbers[0, :-1]]))[0, 1].abs() < 0.06


def test_large_seeds_differ():
    sample = observations(kinds_of("v" * 9), layers=1)
    drawn = {tuple(scores(Random(seed), sample[0])[0, 0].tolist()) for seed in (0, 2**32, 2**33, 9)}
    assert len(drawn) == 4


def test_recency_and_constant():
    sample = observations(kinds_of("pptvvt", "tvvvvt"), layers=1)
    assert scores(Recency(), sample[0])[:, 0].tolist() == [[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]
    assert not scores(Constant(), sample[0]).any()
    assert Constant().rows(sample[0].kinds) is None
