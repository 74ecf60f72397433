"""Train the embedded model from nothing: `python -m foveate.tiny.train`; run it again to resume."""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from foveate.tiny import weights
from foveate.tiny.recipe import CHECKPOINT, Recipe
from foveate.tiny.trainer import SKILLS, Report, Trainer

EVERY = 20


def save(trainer: Trainer, folder: Path) -> None:
    """Write the resumable state so that a crash leaves the old one or the new one, never a half."""
    partial = folder / "state.pt.partial"
    torch.save(trainer.state(), partial)
    os.replace(partial, folder / "state.pt")


class Log:
    """A JSON line every twenty steps and at the end of a stage; a resumed run cuts its tail."""

    def __init__(self, path: Path, step: int):
        self.path, self.reports = path, list[Report]()
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))

    def add(self, report: Report, trainer: Trainer) -> None:
        """Remember a step; write when there are enough."""
        self.reports.append(report)
        over = trainer.stage is None or trainer.stage.name != report.stage
        if len(self.reports) < EVERY and not over:
            return
        line: dict[str, Any] = {"step": trainer.at.step, "stage": report.stage}
        line["loss"] = round(sum(r.loss for r in self.reports) / len(self.reports), 4)
        for index, skill in enumerate(SKILLS):
            asked = sum(r.asked[index] for r in self.reports)
            if asked:
                line[skill] = round(sum(r.right[index] for r in self.reports) / asked, 4)
        line |= {"own_lookup": round(trainer.at.accuracy(), 4), "norm": round(report.norm, 3)}
        line |= {"answers": trainer.at.answers, "seconds": round(trainer.at.seconds, 1)}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.reports = []


def run(rank: int, recipe: Recipe, folder: Path, output: Path, save_every: int) -> None:
    """One worker's whole training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.workers > 1:
        torch.set_num_threads(1)
        rendezvous = folder / f"rendezvous-{os.getppid()}"
        dist.init_process_group(
            "gloo", init_method=rendezvous.absolute().as_uri(), rank=rank, world_size=recipe.workers
        )
    trainer = Trainer(recipe, rank, device)
    if (folder / "state.pt").exists():
        saved = torch.load(folder / "state.pt", map_location=device, weights_only=True)
        trainer.restore(saved)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, disable=rank > 0) as bar:
        follow(trainer, bar, folder, output, save_every)
    if rank == 0:
        save(trainer, folder)
        weights.save(trainer.master, output)


def follow(trainer: Trainer, bar: Progress, folder: Path, output: Path, save_every: int) -> None:
    """Train to the end; the first worker writes log and state."""
    first = trainer.rank == 0
    log = Log(output / "log.jsonl", trainer.at.step) if first else None
    total = sum(stage.steps for stage in trainer.recipe.stages)
    task = bar.add_task("training", total=total, completed=trainer.at.step)
    while trainer.stage is not None:
        report = trainer.step()
        bar.update(task, advance=1, description=f"{report.stage} loss {report.loss:.3f}")
        if log is not None:
            log.add(report, trainer)
            if trainer.at.step % save_every == 0:
                save(trainer, folder)


def main() -> None:
    """Read the arguments, start the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=CHECKPOINT / "recipe.json")
    parser.add_argument("--state", type=Path, default=Path("runs/tiny"), help="resumable state")
    output = Path("runs/tiny/checkpoint")
    parser.add_argument("--output", type=Path, default=output, help="weights and log")
    parser.add_argument("--save-every", type=int, default=100, help="steps between saved states")
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    args.output.mkdir(parents=True, exist_ok=True)
    recipe = Recipe.load(args.recipe)
    if torch.cuda.is_available():
        recipe = replace(recipe, workers=1)
    recipe.save(args.output / "recipe.json")
    arguments = (recipe, args.state, args.output, args.save_every)
    if recipe.workers == 1:
        run(0, *arguments)
    else:
        multiprocessing.spawn(run, arguments, nprocs=recipe.workers)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
