"""Asks a server for minutes, with good and hostile requests, and says how it bore that.

    python scripts/load.py --minutes 10 --out runs/load.json

The server runs in a process of its own. Good requests are questions about documents of the embedded
model, with methods of their own; their answers are compared with those that plain `generate` gives
in this process. Hostile ones have to be refused with the right status. Exits with 1 after a wrong
answer, a failure of the server or an unexpected status.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hostile
import httpx
import numpy as np
import openai

from foveate import method
from foveate.bench.result import origin
from foveate.cli.answers import answer, prepare
from foveate.cli.models import load
from foveate.tiny.documents import document

KEY = "key-of-a-load-run"
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"keep": 0.5},
    {"method": "snapkv", "keep": 40},
    {"method": "adakv", "keep": 0.5},
    {"method": "h2o", "keep": 0.5},
    {"method": "full"},
)
OWN = {"method": "aircache", "keep": 0.2}


@dataclass(frozen=True)
class Question:
    """A question with its picture, its method, and the only right answer."""

    text: str
    picture: str
    kv: dict[str, Any]
    answer: str


@dataclass
class Tally:
    """What happened, from all threads."""

    good: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def blame(self, words: str) -> None:
        """Note something that must not happen."""
        self.bad.append(words[:400])


def questions(count: int) -> list[Question]:
    """Return questions, each with the answer of `generate` in a `compress` context."""
    loaded, found = load(), []
    for seed in range(count):
        made = document(seed, layout="rows", grid=(8 + seed % 5, 12))
        image, text = made.pages[0], made.questions[seed % len(made.questions)].text
        for kv in WAYS:
            name, keep = ({**OWN, **kv}[word] for word in ("method", "keep"))
            chosen = None if name == "full" else method(name, keep)
            said = answer(loaded, prepare(loaded, [image], text), chosen, 12).text
            found.append(Question(text, hostile.address(image), kv, said))
    return found


@contextlib.contextmanager
def server(log: Path, options: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `foveate serve`; yields its process and its address."""
    own = ["--method", OWN["method"], "--keep", str(OWN["keep"]), "--max-body", "2MiB"]
    command = [sys.executable, "-m", "foveate.cli", "serve", "--port", "0", *own, *options]
    variables = {**os.environ, "FOVEATE_API_KEY": KEY}
    with log.open("w") as lines:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=lines, text=True, env=variables
        )
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            if " at http" not in first:
                raise SystemExit(f"the server did not start; {log} says why")
            yield process, first.split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def ask_well(url: str, known: list[Question], tally: Tally, dice: random.Random) -> None:
    """Ask one known question, whole or as a stream, or leave in the middle of one."""
    one = dice.choice(known)
    streamed, leaves = dice.random() < 0.5, dice.random() < 0.1
    content = [
        {"type": "image_url", "image_url": {"url": one.picture}},
        {"type": "text", "text": one.text},
    ]
    began = time.perf_counter()
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=120) as client:
        try:
            said: Any = client.chat.completions.create(
                model="embedded",
                messages=[{"role": "user", "content": content}],  # type: ignore[list-item]
                max_tokens=12,
                temperature=0,
                stream=streamed,
                extra_body={"kv": one.kv} if one.kv else {},
            )
            if streamed and leaves:
                next(iter(said))
                said.close()
                tally.good["left"] += 1
                return
            text = (
                "".join(chunk.choices[0].delta.content or "" for chunk in said)
                if streamed
                else said.choices[0].message.content
            )
        except openai.RateLimitError:
            tally.good["429"] += 1
            return
        except openai.OpenAIError as error:
            tally.good["failed"] += 1
            tally.blame(f"{one.text} {one.kv}: {error!r}")
            return
    tally.seconds.append(time.perf_counter() - began)
    tally.good["answered"] += 1
    if text.strip() != one.answer:
        tally.good["wrong"] += 1
        tally.blame(f"{one.text} {one.kv}: {text!r} instead of {one.answer!r}")


def ask_badly(url: str, tally: Tally, dice: random.Random) -> None:
    """Send one hostile request, and compare the status with what it has to be."""
    name, send, expected = dice.choice(hostile.REQUESTS)
    try:
        status = send(url.removesuffix("/v1"), KEY, dice)
    except httpx.HTTPError as error:  # hung up while this still sent is as good as refused
        status = f"hung up ({type(error).__name__})"
    tally.hostile[f"{name}: {status}"] += 1
    if status not in (*expected, 429) and not str(status).startswith("hung up"):
        tally.blame(f"{name}: {status} instead of {expected}")


def resident(pid: int) -> float:
    """Return the MiB of memory that a process has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Return what the server did in that time."""
    known, tally = questions(given.pages), Tally()
    seconds = 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        with server(log, given.options) as (process, url):
            for one in known[: len(WAYS)]:  # imports and first passes are no growth
                ask_well(url, [one], Tally(), random.Random(given.seed))
            end = time.monotonic() + seconds
            threads = [
                threading.Thread(
                    target=_client, args=(url, known, tally, end, given.hostile, given.seed + n)
                )
                for n in range(given.clients)
            ]
            for thread in threads:
                thread.start()
            began = time.monotonic()
            while any(thread.is_alive() for thread in threads):
                tally.memory.append((time.monotonic() - began, resident(process.pid)))
                time.sleep(min(1.0, seconds / 20))
            held = _held(url)
        failed = log.read_text().count('"event": "failed"')
    return _told(tally, time.monotonic() - began, failed, held)


def _client(
    url: str, known: list[Question], tally: Tally, end: float, share: float, seed: int
) -> None:
    dice = random.Random(seed)
    while time.monotonic() < end:
        if dice.random() < share:
            ask_badly(url, tally, dice)
        else:
            ask_well(url, known, tally, dice)


def _held(url: str) -> dict[str, float]:
    """Return what the server still holds, once those who left are noticed."""
    head = {"authorization": f"Bearer {KEY}"}
    names = ("foveate_request_bytes", "foveate_engine_kv_bytes", "foveate_engine_running")
    for _ in range(100):
        text = httpx.get(f"{url.removesuffix('/v1')}/metrics", headers=head).text
        pairs = (line.split() for line in text.splitlines() if line.startswith(names))
        held = {name: float(value) for name, value in pairs if name in names}
        if not any(held.values()):
            break
        time.sleep(0.1)
    return held


def _told(tally: Tally, seconds: float, failed: int, held: dict[str, float]) -> dict[str, Any]:
    times, sizes = np.array(tally.memory).T
    settled = times >= times[-1] / 3
    slope = float(np.polyfit(times[settled], sizes[settled], 1)[0]) * 60
    spread = np.percentile(tally.seconds, [50, 95]) if tally.seconds else [float("nan")] * 2
    return {
        "seconds": round(seconds, 1),
        "requests": tally.good.total() + tally.hostile.total(),
        "good": dict(tally.good),
        "wrong": tally.good["wrong"],
        "hostile": dict(sorted(tally.hostile.items())),
        "unexpected": tally.bad[:50],
        "unexpected_count": len(tally.bad),
        "server_failures": failed,
        "held_at_the_end": held,
        "latency_seconds": {"p50": round(spread[0], 4), "p95": round(spread[1], 4)},
        "memory_mib": {
            "start": round(float(sizes[0]), 1),
            "end": round(float(sizes[-1]), 1),
            "peak": round(float(sizes.max()), 1),
            "slope_per_minute": round(slope, 3),  # of the last two thirds
            "samples": [[round(float(t)), round(float(m), 1)] for t, m in _thinned(tally.memory)],
        },
    }


def table(told: dict[str, Any]) -> dict[str, Any]:
    """Return what a document says of a run, all text."""
    good, memory, latency = told["good"], told["memory_mib"], told["latency_seconds"]
    settled = next((m for seconds, m in memory["samples"] if seconds >= 60), memory["start"])
    rows = [
        ("minutes, clients", f"{told['seconds'] / 60:.0f}, {told['clients']}"),
        ("questions answered", f"{good.get('answered', 0):,}"),
        ("of them wrong", f"{told['wrong']}"),
        ("clients that left half-way", f"{good.get('left', 0):,}"),
        ("hostile requests", f"{sum(told['hostile'].values()):,}"),
        ("unexpected statuses", f"{told['unexpected_count']}"),
        ("failures in the server", f"{told['server_failures']}"),
        ("latency, 95th percentile / median", f"{latency['p95'] / latency['p50']:.2f}"),
        ("memory at the start", f"{memory['start']:.0f} MiB"),
        ("after a minute", f"{settled:.0f} MiB"),
        ("at the end", f"{memory['end']:.0f} MiB"),
        (
            "cache bytes held at the end",
            f"{told['held_at_the_end']['foveate_engine_kv_bytes']:.0f}",
        ),
    ]
    return {"columns": ["what", "measured"], "rows": [list(row) for row in rows]}


def _thinned(samples: list[tuple[float, float]], most: int = 120) -> Iterator[tuple[float, float]]:
    return itertools.islice(samples, 0, None, -(-len(samples) // most))


def main(words: list[str] | None = None) -> int:
    """Run, print, write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--hostile", type=float, default=0.4, help="share of hostile requests")
    parser.add_argument("--pages", type=int, default=8, help="documents that are asked about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("options", nargs="*", help="more options of `foveate serve`, after --")
    given = parser.parse_args(words)
    told = run(given)
    told = {
        "what": "load",
        **origin(Path(__file__).parent, "cpu"),
        "clients": given.clients,
        **told,
    }
    told["table"] = table(told)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(told, indent=1) + "\n")
    shown = {**told, "memory_mib": {**told["memory_mib"], "samples": "in --out"}}
    print(json.dumps(shown, indent=1))
    return int(bool(told["unexpected_count"] or told["server_failures"]))


if __name__ == "__main__":
    sys.exit(main())
