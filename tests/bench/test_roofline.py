"""The roofline: bytes over bandwidth, and the ratio that bytes alone give."""

import pytest
import torch

from foveate.bench import roofline


def test_bandwidth_is_that_of_reading_the_buffer(monkeypatch):
    spent = iter([99.0, *[4.0] * 10, 2.0, *[4.0] * 10])  # the first time is not counted
    monkeypatch.setattr(roofline, "milliseconds", lambda *words: next(spent))
    roof = roofline.measured("cpu", "bfloat16", working=1000)
    assert (roof.bandwidth, roof.working, roof.dtype) == (1000 / 0.002, 1000, "bfloat16")
    assert roof.threads == torch.get_num_threads()


def test_no_more_is_read_than_is_needed(monkeypatch):
    monkeypatch.setattr(roofline, "milliseconds", lambda *words: 1.0)
    monkeypatch.setattr(roofline, "GIB", 1 << 20)
    assert roofline.measured("cpu", "float32").working == 1 << 20
    assert roofline.measured("cpu", "float32", working=1 << 30).working == 1 << 20


def test_a_real_buffer_is_read():
    roof = roofline.measured("cpu", "float32", working=1 << 16)
    assert roof.bandwidth > 0 and roof.working == 1 << 16
    assert set(roof.to_dict()) == {"bandwidth", "working", "device", "dtype", "threads"}


def test_least_time_is_all_bytes_over_the_bandwidth():
    roof = roofline.Roof(2e9, 1, "cpu", "float32", 1)
    assert roof.milliseconds(weights=3_000_000, cache=1_000_000) == pytest.approx(2.0)


@pytest.mark.parametrize(("cache", "ratio"), [(300, 1.0), (100, 0.5), (0, 0.25)])
def test_ratio_of_bytes(cache, ratio):
    assert roofline.predicted(weights=100, cache=cache, full=300) == ratio
