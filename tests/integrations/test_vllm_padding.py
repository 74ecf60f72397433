"""What padding costs is measured on files that were really written."""

import pytest
import vllm_padding

import foveate
from alone import wide


@pytest.fixture(scope="module")
def model():
    return wide("llava-1.5").build()


def test_even_counts_cost_nothing_and_others_what_their_largest_head_keeps(model):
    prompts = [wide("llava-1.5").inputs(1, seed=seed) for seed in range(2)]
    even = vllm_padding.measured(model, prompts, foveate.snapkv(keep=5, scope="visual"))
    assert even.fits and even.kept == even.handed < even.full
    method = foveate.pyramidkv(keep=5, scope="visual")
    ragged = vllm_padding.measured(model, prompts, method)
    assert not ragged.fits
    assert even.kept == ragged.kept < ragged.handed < ragged.full
    row = vllm_padding.table({"`snapkv`": {26: even, 77: even}})["rows"][0]
    assert row[:2] == ["`snapkv`", "yes"] and row[4] == row[7] == "nothing"
    row = vllm_padding.table({"`pyramidkv`": {26: ragged, 77: ragged}})["rows"][0]
    assert row[1] == "padded" and row[4].endswith("%")
