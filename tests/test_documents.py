"""The checkers of documents find what they are for; examples run."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import charts
import check_docs
import figures
import pytest
import tables

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_documents_of_this_repository_are_sound(capsys):
    assert check_docs.main() == 0, capsys.readouterr().out


@pytest.fixture
def site(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").write_text("# Two words\n\n## Two words\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[b](docs/b.md#two-words-1) `foveate.plan`", None),
        ("[web](https://example.test/x)\n```sh\n[no](link)\n```", None),
        ("[b](docs/c.md)", "no such file"),
        ("[b](../outside.md)", "no such file"),
        ("[b](docs/b.md#three)", "no such heading"),
        ("[b](#nowhere)", "no such heading"),
        ("`foveate.plam(...)`", "foveate.plam does not exist"),
        ("```\nls\n```", "no language"),
        ("see /" + "home/someone/data", "path of one machine"),
    ],
)
def test_unsound_documents_are_found(site, capsys, text, says):
    (site / "a.md").write_text(text)
    assert check_docs.main(site) == (says is not None)
    assert (says or "") in capsys.readouterr().out


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    result = {
        "date": "2026-01-02",
        "commit": "abc",
        "versions": {"foveate": "1", "torch": "2"},
        "machine": {"threads": 2, "system": "Linux"},
        "table": {"columns": ["case", "ratio"], "rows": [["prefill", "1.01"]]},
    }
    (folder / "cache.json").write_text(json.dumps(result))
    return tmp_path


def test_tables_are_written_and_then_up_to_date(results, capsys):
    page = results / "README.md"
    page.write_text("before\n<!-- table:cache -->\nold\n<!-- /table -->\nafter\n")
    assert tables.main(["--check"], results) == 1
    assert "README.md" in capsys.readouterr().out
    assert "old" in page.read_text()
    assert tables.main([], results) == 0
    assert "| prefill | 1.01 |" in page.read_text()
    assert "commit `abc`" in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("after\n")
    assert tables.main(["--check"], results) == 0


def test_rows_and_columns_of_a_table_can_be_chosen(results, capsys):
    path = results / "benchmarks" / "results" / "cache.json"
    result = json.loads(path.read_text())
    result["table"]["rows"].append(["decode, 10 %", "0.5"])
    path.write_text(json.dumps(result))
    page = results / "README.md"
    page.write_text("<!-- table:cache rows: decode, 10 % -->\n<!-- /table -->\n")
    assert tables.main([], results) == 0
    assert "| decode, 10 % | 0.5 |" in page.read_text() and "prefill" not in page.read_text()
    page.write_text(
        "<!-- table:cache rows: decode, 10 %; prefill columns: ratio -->\n<!-- /table -->\n"
    )
    assert tables.main([], results) == 0
    assert "| ratio |\n| --- |\n| 0.5 |\n| 1.01 |\n" in page.read_text()
    page.write_text("<!-- table:cache columns: case; times -->\n<!-- /table -->\n")
    assert tables.main([], results) == 1
    assert "no column 'times'; known: case; ratio" in capsys.readouterr().err
    page.write_text("<!-- table:cache rows: peak -->\n<!-- /table -->\n")
    assert tables.main([], results) == 1
    assert "no row of cache.json begins with 'peak'" in capsys.readouterr().err


def test_charts_older_than_their_numbers_are_found(tmp_path, capsys):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    numbers = (ROOT / "benchmarks" / "results" / "sums-cpu.json").read_text()
    (folder / "sums-cpu.json").write_text(numbers)
    (folder / "other.json").write_text("{}")  # not the benchmark's
    assert charts.main(["--check"], tmp_path) == 1
    assert charts.main([], tmp_path) == charts.main(["--check"], tmp_path) == 0
    (folder / "sums-cpu.json").write_text(numbers + " ")
    assert charts.main(["--check"], tmp_path) == 1
    assert "out of date, run scripts/charts.py: docs/charts/sums-cpu.svg" in capsys.readouterr().out
    (folder / "sums-cpu.json").unlink()
    assert charts.main([], tmp_path) == 1
    assert "no sums-cpu.json" in capsys.readouterr().out


def test_the_figure_is_that_of_the_program():
    assert figures.TARGET.read_text() == figures.figure()


def test_table_without_results_is_an_error(results, capsys):
    (results / "README.md").write_text("<!-- table:absent -->\n<!-- /table -->\n")
    assert tables.main([], results) == 1
    assert "absent.json" in capsys.readouterr().err


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_and_are_short(path, tmp_path, monkeypatch, capsys):
    assert len(path.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert all(f"  {target} " in done.stdout for target in phony.split())
