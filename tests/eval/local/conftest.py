"""A folder with images, and tables beside them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from questions import png


@pytest.fixture
def folder(tmp_path):
    for colour in ("red", "green", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "deep.png").write_bytes(png("blue"))
    return tmp_path


@pytest.fixture
def write(folder):
    """Write rows to a file by its ending, and return its path."""

    def write(rows, name="data.json"):
        path = folder / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        elif name.endswith(".jsonl"):
            path.write_text("\n".join(json.dumps(row) for row in rows))
        else:
            path.write_text(json.dumps(rows))
        return path

    return write
