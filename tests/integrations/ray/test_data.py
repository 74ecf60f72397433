"""Ray Data: two actors answer a data set with bad rows, and what comes out can be read again."""

import math

import pyarrow as pa
import pyarrow.parquet
import pytest
import ray
import torch

from foveate.integrations.ray import BatchGenerator

from .conftest import KEEP, METHOD, TOKENS

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
BAD = {2: b"no picture", 5: None}


class Telling(BatchGenerator):
    """Also says which actor answered, and on how many threads."""

    def __call__(self, batch):
        told = super().__call__(batch)
        actor = ray.get_runtime_context().get_actor_id()
        return {
            **told,
            "actor": [actor] * len(told["id"]),
            "threads": [torch.get_num_threads()] * len(told["id"]),
        }


def test_a_data_set_with_bad_rows_is_answered_into_parquet(cluster, rows, tmp_path):
    images = [BAD.get(index, image) for index, image in enumerate(rows.columns["image"])]
    table = pa.table({**rows.columns, "image": pa.array(images, pa.binary())})
    (tmp_path / "in").mkdir()
    pa.parquet.write_table(table, tmp_path / "in" / "rows.parquet")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 120  # so that both have work
    dataset = ray.data.read_parquet(str(tmp_path / "in")).repartition(4)
    given = {"method": METHOD, "keep": KEEP, "max_new_tokens": TOKENS, "device": "cpu"}
    dataset.map_batches(
        Telling,
        fn_constructor_kwargs=given,
        batch_size=2,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).write_parquet(str(tmp_path / "out"))
    found = pa.parquet.read_table(tmp_path / "out").sort_by("id").to_pydict()
    assert found["id"] == list(range(8)) and "image" not in found
    said = ["" if index in BAD else one for index, one in enumerate(rows.said)]
    assert found["answer"] == said
    assert [bool(error) for error in found["error"]] == [index in BAD for index in range(8)]
    assert "not an image" in found["error"][2] and "no image" in found["error"][5]
    for index, (kept, stored, full) in enumerate(
        zip(found["kept"], found["bytes_stored"], found["bytes_full"], strict=True)
    ):
        assert (math.isnan(kept), stored == 0) == (index in BAD, index in BAD)
        assert index in BAD or (kept == pytest.approx(rows.kept[index]) and stored < full)
    assert len(set(found["actor"])) == 2 and set(found["threads"]) == {1}
