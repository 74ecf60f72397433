"""A grid is tasks, methods, budgets and seeds; it is worked through in any order, and to be killed.

Every answer is written down before the next is asked for, and what is written is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError, InputError
from foveate.eval.entry import FULL, Entry, Keep
from foveate.eval.log import Log, check_same, check_work
from foveate.eval.record import Cell, Record, Run
from foveate.eval.running.journal import Journal
from foveate.eval.running.origin import Identity, origin
from foveate.eval.running.parts import adopt, part
from foveate.eval.running.ranks import Alone, Team
from foveate.eval.running.unit import Asked, Setting, Unit, Work
from foveate.eval.running.workers import Here, Processes
from foveate.eval.task import Task
from foveate.method import Method

__all__ = ["Grid", "Progress", "Setting", "run"]


@dataclass(frozen=True)
class Grid:
    """Every entry at every budget on every task and seed, and beside them the full cache.

    `number` is how many samples a task gives for each seed, all it has if None.
    """

    tasks: tuple[Task, ...]
    entries: tuple[Entry, ...]
    keeps: tuple[Keep, ...]
    seeds: tuple[int, ...] = (0,)
    number: int | None = 300

    def __post_init__(self) -> None:
        for what, names in (
            ("task", [task.name for task in self.tasks]),
            ("method", [entry.label for entry in self.entries]),
            ("keep", [str(keep) for keep in self.keeps]),
            ("seed", [str(seed) for seed in self.seeds]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise InputError(f"{what} {sorted(twice)[0]} came twice; give it once")
        for entry in self.entries:
            if entry.preset == FULL.preset and entry.options:
                raise InputError(
                    f"the full cache has no option {next(iter(entry.options))}; leave it out: the "
                    "full cache is there anyhow"
                )
            if entry.label == FULL.label and entry.preset != FULL.preset:
                raise InputError(f"{entry.preset} is labelled full; give it another label")
        if self.number is not None and self.number < 1:
            raise InputError(f"{self.number} samples came for each task; give at least 1")
        if not self.tasks or not self.seeds:
            raise InputError("a grid needs a task and a seed at least; give one of each")

    def rows(self) -> list[tuple[Entry, Keep]]:
        """Return what every task and seed meets: the full cache, then all entries and budgets."""
        entries = [entry for entry in self.entries if entry.preset != FULL.preset]
        return [(FULL, 1.0), *((entry, keep) for entry in entries for keep in self.keeps)]

    def methods(self) -> dict[tuple[str, str], Method | None]:
        """Return the methods by entry and budget; raises `MethodError` for what cannot exist."""
        return {(entry.label, str(keep)): entry.method(keep) for entry, keep in self.rows()}

    def cells(self) -> list[Cell]:
        """Return the cells, those that are asked the same beside each other."""
        return [
            Cell(task.name, entry.label, str(keep), seed)
            for seed in self.seeds
            for task in self.tasks
            for entry, keep in self.rows()
        ]

    def part_of(self, log: Log) -> Log:
        """Return what a log has of these cells, and in them of the samples that are asked for."""
        cells = set(self.cells())
        records = [one for one in log.records if one.cell in cells]
        there: dict[tuple[str, int], set[str]] = {}
        for one in records:
            there.setdefault((one.cell.task, one.cell.seed), set()).add(one.sample)
        sources = {task.name: task.source for task in self.tasks}
        for (name, seed), known in there.items():
            samples = sources[name].samples(self.number, seed)
            if len(known) > len(samples):  # only then they need to be looked at
                known &= {sample.id for sample in samples}
        return Log(
            log.runs,
            tuple(one for one in records if one.sample in there[one.cell.task, one.cell.seed]),
        )


@dataclass(frozen=True)
class Progress:
    """How far a run is: samples answered, in all, failed among them, and the cell just done."""

    done: int
    total: int
    failed: int
    cell: Cell | None = None


def run(
    grid: Grid,
    load: Callable[[], Any],
    path: str | Path,
    *,
    setting: Setting | None = None,
    workers: int = 1,
    team: Team | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[Progress], Any] = lambda progress: None,
    check: Callable[[Run], Any] = lambda run: None,
) -> Log:
    """Return the log of the whole grid, of which only what is not in the file yet is worked out.

    `load` returns the model, once in every process; with more than one worker it must be a function
    of a module, perhaps with `functools.partial`. The file is that of `Journal`: it can be killed
    at any time, and the same call goes on with it. Processes of a `team` share the work if all of
    them make the same call, and all return the same log. Of a log that goes on, `check` is
    called with the last run, before anything is loaded or written, and raises where it may not.
    """
    setting, team = setting or Setting(), team or Alone()
    if min(workers, team.size) > 1:
        raise InputError(
            f"{team.size} processes were launched, and --workers {workers} came beside; leave out "
            "one of the two"
        )
    work = Work(
        load, setting, {task.name: task for task in grid.tasks}, grid.methods(), grid.number
    )
    with ExitStack() as files:
        main: list[Journal] = []  # in the first process, which has it to itself

        def planned() -> _Plan:
            main.append(files.enter_context(Journal(path)))
            return _planned(main[0], work, grid, retry_failed, check)

        plan = team.same(planned)
        on_progress(plan.progress)
        if plan.units:
            own = nullcontext(main[0]) if main else Journal(part(path, team.rank), path)
            work = replace(work, prompts=plan.prompts)
            with own as journal:
                _carry_out(plan, work, grid, workers, team, journal, on_progress)
            team.wait()
        return team.same(lambda: _whole(main[0], grid, plan.progress.total))


@dataclass(frozen=True)
class _Plan:
    """What is to be done, how far all was before, and what was asked then."""

    units: list[Unit]
    progress: Progress
    prompts: dict[Asked, str]


def _planned(
    journal: Journal, work: Work, grid: Grid, again: bool, check: Callable[[Run], Any]
) -> _Plan:
    def may_go_on(before: Sequence[Run]) -> None:
        check_work(before, *_told(work), vars(work.setting), journal.path)
        if before:
            check(before[-1])

    adopt(journal, may_go_on)
    units, total = _left(work, journal, grid.cells(), again)
    done = total - sum(len(unit.indices) for unit in units)
    records = grid.part_of(journal.log).records
    failed = 0 if again else sum(one.error is not None for one in records)
    return _Plan(units, Progress(done, total, failed), _asked(records))


def _asked(records: Sequence[Record]) -> dict[Asked, str]:
    """Return the prompts of samples, as they were when they were first answered."""
    prompts: dict[Asked, str] = {}
    for one in records:
        if one.prompt:
            prompts.setdefault((one.cell.task, one.cell.seed, one.sample), one.prompt)
    return prompts


def _carry_out(
    plan: _Plan,
    work: Work,
    grid: Grid,
    workers: int,
    team: Team,
    journal: Journal,
    on_progress: Callable[[Progress], Any],
) -> None:
    """Work through the plan with the rest of the team, and write down what is found."""
    before = plan.progress
    with Here(work) if workers == 1 else Processes(work, workers) as crew:
        _begin(_run(crew.identity, work, grid, workers, team.size), journal, team)
        on_progress(before)  # the model is there
        for records in crew.records(team.take(plan.units)):
            journal.append(records)
            done = before.done + team.count("done", len(records))
            bad = sum(record.error is not None for record in records)
            failed = before.failed + team.count("failed", bad)
            on_progress(Progress(done, before.total, failed, records[0].cell))


def _begin(one: Run, journal: Journal, team: Team) -> None:
    """Write down who goes on; nobody does if the first process may not."""

    def begun() -> Run:
        journal.begin(one)
        return one

    first = team.same(begun)
    if team.rank > 0:
        check_same([first], one, journal.path)
        journal.begin(one)


def _whole(journal: Journal, grid: Grid, total: int) -> Log:
    """Return what all processes have written."""
    adopt(journal)
    missing = total - len(grid.part_of(journal.log).records)
    if missing > 0:
        raise FoveateError(
            f"{journal.path}: {missing} answers of other processes are not in its folder; let all "
            "processes see the same one, and give the same command again"
        )
    return journal.log


def _told(work: Work) -> tuple[dict[str, str], dict[str, str]]:
    """Return what tasks and methods are, by their names in logs."""
    tasks = {name: repr(task) for name, task in work.tasks.items()}
    methods = {f"{entry} @ {keep}": repr(one) for (entry, keep), one in work.methods.items()}
    return tasks, methods


def _left(
    work: Work, journal: Journal, cells: Sequence[Cell], again: bool
) -> tuple[list[Unit], int]:
    """Return what is still to do, and how many samples the grid has.

    The first slice of all cells comes first, then the second: early results cover everything.
    """
    told: dict[Cell, set[str]] = {}
    for record in journal.log.records:
        if record.error is None or not again:
            told.setdefault(record.cell, set()).add(record.sample)
    units, total = [], 0
    batch = work.setting.batch
    for asked in dict.fromkeys((cell.task, cell.seed) for cell in cells):
        alike = [cell for cell in cells if (cell.task, cell.seed) == asked]
        samples = work.samples(alike[0])
        if not samples:
            raise InputError(f"task {asked[0]} has no samples; give data that has some")
        total += len(samples) * len(alike)
        known = any(cell in told for cell in alike)
        names = [sample.id for sample in samples] if known else []
        for cell in alike:
            seen = told.get(cell, set())
            left = [i for i in range(len(samples)) if not seen or names[i] not in seen]
            slices = groupby(left, lambda index: index // batch)
            units += [Unit(cell, tuple(indices)) for _, indices in slices]
    units.sort(key=lambda unit: unit.indices[0] // batch)
    return units, total


def _run(who: Identity, work: Work, grid: Grid, workers: int, processes: int) -> Run:
    settings = {name: value for name, value in vars(work.setting).items() if name != "answerer"}
    settings |= {"dtype": who.dtype, "device": who.device, "attention": who.attention}
    settings |= {"workers": workers, "number": grid.number, "seeds": list(grid.seeds)}
    settings |= {"processes": processes} if processes > 1 else {}
    tasks, methods = _told(work)
    return Run(
        model=who.model,
        revision=who.revision,
        **origin(who.device),
        settings=settings,
        tasks=tasks,
        methods=methods,
    )
