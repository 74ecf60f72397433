"""The tables of MixKV (arXiv 2510.20707), on the embedded model."""

from __future__ import annotations

from typing import Any

from foveate.eval.entry import Entry
from foveate.eval.studies import printed
from foveate.eval.studies.parts import measured, tasks
from foveate.eval.study import Layout, Study

__all__ = ["COMPONENTS", "HOSTS"]

NAMES = ("snapkv", "pyramidkv", "adakv", "sparsemm")


def host_options(host: str, prefix: str = "host_") -> dict[str, Any]:
    """Return what a host needs to know of the embedded model."""
    if host != "sparsemm":
        return {}
    return {f"{prefix}table": measured("heads"), "redistribute": True}


HOSTS = Study(
    name="mixkv-hosts",
    answers="What does MixKV add to its hosts, with so many tokens per head and layer?",
    tasks=tasks(576),
    entries=tuple(
        entry
        for host in NAMES
        for entry in (
            Entry(host, host_options(host, ""), host),
            Entry(f"mixkv+{host}", host_options(host), f"mixkv+{host}"),
        )
    ),
    keeps=(256, 128, 64),
    layouts=(
        Layout(
            "table-1",
            "Tokens per head and layer, text and window included",
            columns=("family", "keep"),
            together=True,
            over={f"mixkv+{host}": host for host in NAMES},
        ),
    ),
    printed=(printed.MIXKV_1,),
)

# the rows of the paper's table: what importance adds up, and how diversity is mixed in
SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"importance": "attention", "diversity": "none"},
    "attention and KNorm": {"importance": "attention+knorm", "diversity": "none"},
    "attention and VNorm": {"importance": "attention+vnorm", "diversity": "none"},
    "diversity alone": {"importance": "none"},
    "sum": {"mix": "sum"},
    "mixed, measured before": {"mix": "offline"},
    "mixed, measured per prompt": {},
}


def component(setting: str, host: str) -> Entry:
    """Return one cell of the ablation."""
    options = {**SETTINGS[setting], **host_options(host)}
    if options.get("mix") == "offline":
        options["table"] = measured("redundancy")
    return Entry(f"mixkv+{host}", options, f"{setting} on {host}")


COMPONENTS = Study(
    name="mixkv-components",
    answers="Which part of MixKV's score helps which host?",
    tasks=tasks(576),
    entries=tuple(
        component(setting, host) for setting in SETTINGS for host in ("snapkv", "adakv", "sparsemm")
    ),
    keeps=(64,),
    layouts=(
        Layout("table-4", "64 tokens per head and layer", ("setting",), ("family", "host")),
        Layout("table-4-all", "All tasks", ("setting",), ("host",)),
    ),
    reference="attention",
    printed=(printed.MIXKV_4,),
)
