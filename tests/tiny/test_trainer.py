"""Training resumes exactly, keeps its recipe, and moves through the curriculum."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from foveate.tiny import train
from foveate.tiny.batches import Scope, batch
from foveate.tiny.recipe import CHECKPOINT, ROWS, Recipe, Stage
from foveate.tiny.trainer import Progression, Trainer

SMALL = Scope(((2, 4), (3, 4)), ROWS, (1, 2), (1, 2))
RECIPE = Recipe(
    (Stage("a", SMALL, 200, 3, None), Stage("b", SMALL, 200, 3, None, rate=(1.0, 0.0))),
    seed=3,
    layers=2,
    hidden=64,
    workers=1,
)


def weights(trainer):
    """All weights in one vector."""
    return torch.cat([p.detach().flatten() for p in trainer.params])


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = Trainer(RECIPE)
    for _ in range(6):
        whole.step()
    first = Trainer(RECIPE)
    for _ in range(4):
        first.step()
    train.save(first, tmp_path)
    second = Trainer(RECIPE)
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        second.step()
    assert torch.equal(weights(whole), weights(second))
    done, again = (replace_seconds(t.at) for t in (whole, second))
    assert done == again
    assert whole.stage is None


def replace_seconds(at):
    """Progress without its clock."""
    return replace(at, seconds=0.0)


def test_a_whole_run_leaves_log_recipe_and_checkpoint(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 99}\n')
    train.run(0, RECIPE, tmp_path, tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["stage"]) for line in lines] == [(3, "a"), (6, "b")]
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert (tmp_path / "tokenizer.json").exists()


@pytest.mark.slow
def test_two_workers_train_together(tmp_path):
    torch.multiprocessing.spawn(
        train.run, (replace(RECIPE, workers=2), tmp_path, tmp_path, 100), nprocs=2
    )
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["at"]["step"] == 6


@pytest.mark.parametrize("right", [80, 95])
def test_a_stage_ends_by_promotion_or_by_its_steps(right):
    stage = Stage("a", SMALL, 200, 60, promote=0.9, least=30)
    at = Progression()
    while at.stage == 0:
        at.recent.append((right, 100))
        at.advance(stage)
    assert at.step == (30 if right == 95 else 60)
    assert (at.stage_step, len(at.recent)) == (0, 0)


def test_a_recipe_survives_its_file(tmp_path):
    RECIPE.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == RECIPE


def test_the_shipped_recipe_is_the_run_in_the_log():
    recipe = Recipe.load(CHECKPOINT / "recipe.json")
    lines = [json.loads(line) for line in (CHECKPOINT / "log.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(line["stage"] for line in lines))
    assert names == [stage.name for stage in recipe.stages]
    assert lines[-1]["step"] <= sum(stage.steps for stage in recipe.stages)


def test_batches_depend_on_their_seed_alone():
    one, same, other = (batch(SMALL, ((3, 4), 1), 200, seed) for seed in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert torch.equal(one.patches, same.patches)
    assert not torch.equal(one.patches[:3], other.patches[:3])
