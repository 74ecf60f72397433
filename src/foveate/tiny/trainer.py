"""One training step after the other: master weights, optimisers, curriculum, resumable state."""

import copy
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foveate.errors import MissingExtra
from foveate.tiny import architecture, batches, fast
from foveate.tiny.batches import TRAINED
from foveate.tiny.layouts import LAYOUTS, Dice
from foveate.tiny.recipe import Recipe, Stage

SKILLS = tuple(f"{layout}.{skill}" for layout in LAYOUTS for skill in (*TRAINED, "count"))
LOOKUPS = [index for index, name in enumerate(SKILLS) if name.endswith("lookup")]
WINDOW = 25


@dataclass
class Progression:
    """Where the run is: everything but weights that must survive a restart."""

    step: int = 0
    stage: int = 0
    stage_step: int = 0
    seconds: float = 0.0
    answers: int = 0
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def accuracy(self) -> float:
        """Share of look-ups answered exactly in the last steps of this stage's own documents."""
        right, asked = (sum(pair[i] for pair in self.recent) for i in (0, 1))
        return right / max(asked, 1)

    def advance(self, stage: Stage) -> None:
        """Count a step and go to the next stage when this one is over."""
        self.step += 1
        self.stage_step += 1
        full = len(self.recent) == WINDOW and self.stage_step >= stage.least
        promoted = stage.promote is not None and full and self.accuracy() > stage.promote
        if promoted or self.stage_step >= stage.steps:
            self.stage, self.stage_step = self.stage + 1, 0
            self.recent.clear()


@dataclass(frozen=True)
class Report:
    """What one step saw, summed over the workers."""

    step: int
    stage: str
    loss: float
    norm: float
    right: tuple[float, ...]
    asked: tuple[float, ...]


class Trainer:
    """Master weights in float32 with optimisers, and a bf16 copy for forward and backward."""

    def __init__(
        self,
        recipe: Recipe,
        rank: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ):
        torch.manual_seed(recipe.seed)
        self.recipe, self.rank, self.device = recipe, rank, device
        fresh: Any = architecture.build(recipe.layers, recipe.hidden)
        self.master = fresh.to(device)
        self.worker = architecture.lower(self.master, dtype)
        heads = [nn.Linear(recipe.hidden, recipe.hidden, bias=False)] * recipe.distances
        self.heads = nn.ModuleList(copy.deepcopy(head) for head in heads).to(device)
        self.spare = copy.deepcopy(self.heads).to(dtype)
        both, lower = [self.master, self.heads], [self.worker, self.spare]
        self.params: list[Tensor] = [p for m in both for p in m.parameters() if p.requires_grad]
        self.copies: list[Tensor] = [p for m in lower for p in m.parameters() if p.requires_grad]
        self.optimizers = optimizers(self.master, self.heads, recipe)
        self.at = Progression()

    @property
    def stage(self) -> Stage | None:
        """The current stage, None after the last one."""
        stages = self.recipe.stages
        return stages[self.at.stage] if self.at.stage < len(stages) else None

    def rate(self, stage: Stage) -> float:
        """Factor on the learning rates: the run's warm-up times the stage's own straight line."""
        start, end = stage.rate
        line = start + (end - start) * min(1.0, self.at.stage_step / max(1, stage.steps))
        return line * min(1.0, (self.at.step + 1) / max(1, self.recipe.warmup))

    def draw(self) -> tuple[fast.Batch, bool]:
        """This step's batch, and whether it shows the current stage rather than an earlier one."""
        at, recipe = self.at, self.recipe
        stage = recipe.stages[at.stage]
        dice = Dice((recipe.seed << 32) + at.step)
        own = at.stage == 0 or dice.random() >= stage.replay
        shown = stage if own else recipe.stages[dice.between(0, at.stage - 1)]
        shape = (dice.pick(shown.scope.grids), dice.pick(shown.scope.pages))
        seed = ((recipe.seed << 32) + at.step) * 64 + self.rank
        return batches.batch(shown.scope, shape, stage.tokens // recipe.workers, seed), own

    def step(self) -> Report:
        """One update of the weights."""
        started = time.perf_counter()
        stage = self.recipe.stages[self.at.stage]
        batch, own = self.draw()
        batch = fast.to(batch, self.device)
        states = fast.states(self.worker, batch)
        outputs = nn.functional.linear(states, self.worker.lm_head.weight)
        loss = fast.loss(outputs, batch)
        whole = loss
        if stage.ahead:
            later = fast.ahead(states, self.spare, self.worker.lm_head.weight, batch)
            whole = loss + stage.ahead * later
        whole.backward()
        stats = self._share(torch.cat([loss.detach().float()[None], *_tally(outputs, batch)]))
        norm = self._update(self.rate(stage))
        mean, *counts = stats.tolist()
        right, asked = counts[: len(SKILLS)], counts[len(SKILLS) :]
        if own:
            pair = (sum(right[i] for i in LOOKUPS), sum(asked[i] for i in LOOKUPS))
            self.at.recent.append(pair)
        self.at.seconds += time.perf_counter() - started
        self.at.answers += int(sum(asked))
        report = Report(self.at.step, stage.name, mean, norm, tuple(right), tuple(asked))
        self.at.advance(stage)
        return report

    def _share(self, stats: Tensor) -> Tensor:
        """Average gradients over workers into the master's; sum statistics, average the loss."""
        flat = torch.cat([stats, *(_gradient(p).float().flatten() for p in self.copies)])
        if self.recipe.workers > 1:
            dist.all_reduce(flat)
        flat[len(stats) :] /= self.recipe.workers
        flat[0] /= self.recipe.workers
        offset = len(stats)
        for copy_, param in zip(self.copies, self.params, strict=True):
            param.grad = flat[offset : offset + param.numel()].view_as(param)
            offset += param.numel()
            copy_.grad = None
        return flat[: len(stats)].clone()

    def _update(self, rate: float) -> float:
        """Clip, step both optimisers, refresh the bf16 copy; returns the gradient norm."""
        norm = nn.utils.clip_grad_norm_(self.params, self.recipe.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.copies, self.params)
        return norm.item()

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on as if nothing had happened."""
        return {
            "master": self.master.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "at": {**vars(self.at), "recent": list(self.at.recent)},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""
        self.master.load_state_dict(state["master"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.at = Progression(
            **{**state["at"], "recent": deque(state["at"]["recent"], maxlen=WINDOW)}
        )
        with torch.no_grad():
            torch._foreach_copy_(self.copies, self.params)


def optimizers(model: nn.Module, heads: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices, AdamW for embeddings, patch filter, norms, biases and heads."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [
        p for name, p in named if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    inner = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in inner]
    if not hasattr(torch.optim, "Muon"):
        raise MissingExtra(f"training needs torch 2.9 or newer, and this is {torch.__version__}")
    muon = torch.optim.Muon(matrices, lr=recipe.muon, momentum=0.95, weight_decay=0.01)
    adamw = torch.optim.AdamW(rest, lr=recipe.adamw, betas=(0.9, 0.98), weight_decay=0.0)
    further = torch.optim.AdamW(heads.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
    for optimizer in (muon, adamw, further):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [muon, adamw, further]


def _gradient(parameter: Tensor) -> Tensor:
    """The gradient; nothing flows into the heads of multi-token prediction while it is off."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _tally(outputs: Tensor, batch: fast.Batch) -> tuple[Tensor, Tensor]:
    """Right answers and questions for each of SKILLS."""
    hits = fast.exact(outputs.detach(), batch).float()
    names = torch.tensor([SKILLS.index(skill) for skill in batch.skills], device=hits.device)
    asked = torch.bincount(names, minlength=len(SKILLS)).float()
    return torch.bincount(names, weights=hits, minlength=len(SKILLS)).float(), asked
