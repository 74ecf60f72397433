"""Pictures that come again are not encoded again, and nothing else changes."""

import pytest
import torch
from torch import nn

from foveate.hf.encoded import ENCODER, Encoded


class Model(nn.Module):
    """A model whose image encoder counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def get_image_features(self, pixel_values, image_grid_thw=None, **kwargs):
        self.calls += 1
        if kwargs.get("fails"):
            raise RuntimeError("no memory")
        return pixel_values.sum() + self.calls


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((torch.ones(2, 3),), {}),
        ((torch.zeros(2, 2),), {}),
        ((torch.zeros(2, 3).double(),), {}),
        ((torch.zeros(2, 3),), {"image_grid_thw": torch.tensor([1, 2])}),
        ((torch.zeros(2, 3),), {"flag": True}),
    ],
    ids=["values", "shape", "dtype", "grid", "option"],
)
def test_anything_that_differs_is_encoded(args, options):
    model, encoded = Model(), Encoded()
    with encoded.around(model):
        model.get_image_features(torch.zeros(2, 3))
        model.get_image_features(*args, **options)
        assert not encoded.reused
        model.get_image_features(*args, **options)
    assert (encoded.reused, model.calls) == (1, 2)


def test_the_model_is_as_before_also_after_an_error():
    model, encoded = Model(), Encoded()
    with pytest.raises(RuntimeError, match="no memory"), encoded.around(model):
        model.get_image_features(torch.zeros(1), fails=True)
    assert ENCODER not in vars(model)
    with encoded.around(model):  # what failed was not remembered
        assert model.get_image_features(torch.zeros(1)) == 2
    assert ENCODER not in vars(model)


def test_a_model_without_an_encoder_and_one_that_is_wrapped_already_are_left_alone():
    plain, wrapped = nn.Linear(1, 1), Model()
    wrapped.__dict__[ENCODER] = mine = lambda *args: 7
    for model in (plain, wrapped):
        with Encoded().around(model):
            assert getattr(model, ENCODER, None) is (mine if model is wrapped else None)
    assert vars(wrapped)[ENCODER] is mine
