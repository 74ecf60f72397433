"""What a harness's model classes share: its flat arguments taken apart, calls counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from foveate import CacheReport, Method, Session, compress, methods
from foveate.cli.options import build_method
from foveate.errors import InputError, nearest

__all__ = ["SETTINGS", "Compression", "Tally", "take_apart"]

SETTINGS = ("storage", "stream", "quantized")  # of `foveate.compress`


@dataclass
class Tally:
    """What the caches of many calls held, summed up."""

    calls: int = 0
    visual: int = 0
    text: int = 0
    kept_visual: float = 0.0
    kept_text: float = 0.0
    bytes_full: int = 0
    bytes_stored: int = 0
    notes: dict[str, int] = field(default_factory=dict)  # what reports remarked, and how often

    def add(self, report: CacheReport) -> None:
        """Count one call."""
        self.calls += 1
        self.visual += report.total_visual
        self.text += report.total_text
        self.kept_visual += report.kept_visual
        self.kept_text += report.kept_text
        self.bytes_full += report.bytes_full
        self.bytes_stored += report.bytes_stored
        for note in report.notes:
            self.notes[note] = self.notes.get(note, 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """Return sums, and shares where there is something to take a share of."""
        shares = {
            "share_visual": (self.kept_visual, self.visual),
            "share_text": (self.kept_text, self.text),
            "share_bytes": (self.bytes_stored, self.bytes_full),
        }
        return {**vars(self), **{k: part / all for k, (part, all) in shares.items() if all}}

    def __str__(self) -> str:
        if not self.calls:
            return "nothing was generated"
        parts = [
            f"{kept / total:.1%} of {total:,} {kind} tokens"
            for kind, kept, total in (
                ("visual", self.kept_visual, self.visual),
                ("text", self.kept_text, self.text),
            )
            if total
        ]
        share = self.bytes_stored / self.bytes_full if self.bytes_full else 1.0
        lines = [
            f"kept {' and '.join(parts) or 'nothing'} of the prompts, {self.bytes_stored:,} of "
            f"{self.bytes_full:,} bytes ({share:.1%}), in {self.calls:,} calls of generate",
            *(f"note, {count:,} times: {note}" for note, count in self.notes.items()),
        ]
        return "\n".join(lines)


@dataclass
class Compression:
    """A method with the settings of its caches, and what they held so far."""

    method: Method
    settings: Mapping[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    @contextmanager
    def on(self, model: Any) -> Iterator[Session]:
        """Compress every `generate` call of the model inside, and count those that came back."""
        with compress(model, self.method, **self.settings) as session:
            yield session
        for report in session.reports:
            self.tally.add(report)

    def check(self, model: Any) -> None:
        """Raise at once what the first call would raise about this method on this model."""
        with compress(model, self.method, **self.settings):
            pass

    def refuse_likelihoods(self, requests: Iterable[Any]) -> None:
        """Raise `InputError` for requests that no cache takes part in, unless nothing can go."""
        if self.method.keeps_everything:
            return
        names = ", ".join(sorted({str(request.task_name) for request in requests}))
        raise InputError(
            f"{names} asks for likelihoods, which are scored in one pass over the prompt: nothing "
            "is read from a cache, and the score would be the full model's; take tasks that "
            "generate (generate_until), or method=full"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return method, settings and sums as plain values."""
        return {"method": repr(self.method), **self.settings, **self.tally.to_dict()}


def take_apart(
    arguments: Mapping[str, Any], known: Collection[str]
) -> tuple[Compression, dict[str, Any]]:
    """Return the compression that flat arguments ask for, and those that are `known` otherwise.

    Words are read as the command line reads them: `keep="64"` is a number of tokens. Raises
    `InputError` for arguments that nothing knows, and for a missing method.
    """
    rest = {name: value for name, value in arguments.items() if name in known}
    ours = {name: value for name, value in arguments.items() if name not in known}
    settings = {name: ours.pop(name) for name in SETTINGS if name in ours}
    method = ours.pop("method", None)
    if isinstance(method, Method):
        if ours:
            raise InputError(
                f"arguments {sorted(ours)} came beside a complete method; give them to its preset"
            )
        return Compression(method, settings), rest
    if not isinstance(method, str):
        names = ", ".join(info.name for info in methods())
        raise InputError(f"no method came; give method=NAME, one of {names}")
    options = _options(method)
    for name in ours:
        if name != "keep" and options is not None and name not in options:
            hint = nearest(name, {*options, *SETTINGS, *known, "keep", "method"})
            raise InputError(f"nothing knows the argument {name!r}; {hint}")
    keep = ours.pop("keep", None)
    given = [f"{name}={value}" for name, value in ours.items()]
    made = build_method(method, None if keep is None else str(keep), given)
    return Compression(made, settings), rest


def _options(method: str) -> set[str] | None:
    """Return the options of a preset, or None where only the preset itself can say."""
    for info in methods():
        if info.name == method and not info.more:
            return {option.name for option in info.options}
    return None
