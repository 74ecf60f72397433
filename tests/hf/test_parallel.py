"""A model whose heads two processes share writes what one process writes, with every preset."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import foveate
import gold
import parallel_worker
from foveate.budget import PooledHeads, Uniform
from foveate.hf.following import check_even
from foveate.hf.parallel import MeshGroup, head_group, splits_heads
from launching import launched
from parallel_worker import MODELS, family_of, runs

LIMIT = 180  # seconds
WORKER = Path(parallel_worker.__file__)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Per variant what two processes did, and what one does."""
    folder = tmp_path_factory.mktemp("parallel")
    models = {}
    for name in MODELS:
        family = family_of(name)
        models[name] = family.build()
        models[name].save_pretrained(folder / name)
    with launched(WORKER, folder) as process:
        alone = [
            run
            for name, model in models.items()
            for run in runs(family_of(name), model, folder, MODELS[name][1])
        ]
        said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, said[-3000:]
    together = torch.load(folder / "results.pt")
    return list(zip(together, alone, strict=True))


def test_every_preset_writes_the_same(pairs):
    wrong = [b["variant"] for a, b in pairs if not torch.equal(a["sequences"], b["sequences"])]
    assert not wrong


def test_every_preset_keeps_the_same_positions(pairs):
    wrong = [b["variant"] for a, b in pairs if not torch.equal(a["kept"], b["kept"])]
    assert not wrong


def test_every_step_has_the_same_logits(pairs):
    apart = {b["variant"]: (a["logits"] - b["logits"]).abs().max().item() for a, b in pairs}
    assert {name: found for name, found in apart.items() if found > gold.TOLERANCE} == {}


def test_something_went(pairs):
    kept = [b["kept"].float().mean() for _, b in pairs if "full" not in b["variant"]]
    assert max(kept) < 0.9


class Mesh:
    """A device mesh of these dimensions, as far as it is asked."""

    def __init__(self, **sizes: int) -> None:
        self.sizes, self.mesh_dim_names, self.ndim = sizes, tuple(sizes), len(sizes)

    def __getitem__(self, name: str) -> "Mesh":
        return Mesh(**{name: self.sizes[name]})

    def size(self) -> int:
        """How many processes there are."""
        return next(iter(self.sizes.values()))

    def get_group(self) -> str:
        """Stands for the process group."""
        return f"group of {self.mesh_dim_names[0]}"

    def get_local_rank(self) -> int:
        """This process's place."""
        return 1


def split(kv_heads: int, style: str = "colwise", **sizes: int) -> Any:
    """A model with so many key-value heads whose keys are split in that style."""
    text = SimpleNamespace(
        num_hidden_layers=1, num_attention_heads=12, num_key_value_heads=kv_heads
    )
    return SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda decoder: text),
        _tp_size=sizes.get("tp"),
        _tp_plan={"layers.*.self_attn.k_proj": style},
        _device_mesh=Mesh(**sizes) if sizes else None,
    )


def test_the_group_is_that_of_the_heads():
    assert head_group(split(4, pp=1, fsdp=2, tp=4)) == MeshGroup("group of tp", 1, 4)
    assert head_group(split(4, tp=2)) == MeshGroup("group of tp", 1, 2)


@pytest.mark.parametrize("model", [split(4), split(4, tp=1), split(1, "colwise_rep", tp=2)])
def test_heads_that_are_all_here_need_no_group(model):
    assert head_group(model) is None


def test_fused_projections_split_heads_too():
    assert splits_heads({"layers.*.attn.qkv_proj": "colwise"})
    assert not splits_heads({"layers.*.attn.qkv_proj": "colwise_gather_output"})
    assert not splits_heads({"layers.*.mlp.up_proj": "colwise"})


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(foveate.UnsupportedModel, match="3 key-value heads, and 2 processes"):
        head_group(split(3, tp=2))


def test_layers_that_are_elsewhere_are_refused():
    with pytest.raises(foveate.UnsupportedModel, match="pipeline"):
        head_group(split(4, pp=2, tp=1))


class Twins:
    """A process whose other brings the same, or what was given."""

    rank, size = 0, 2

    def __init__(self, other: torch.Tensor | None = None) -> None:
        self.other = other

    def gather(self, part: torch.Tensor, dim: int) -> torch.Tensor:
        """Both parts."""
        return torch.cat([part, part if self.other is None else self.other], dim)


def test_heads_of_different_size_are_not_ranked_together():
    mine, other = torch.full((1, 2), 5), torch.tensor([[[5, 4]]])
    tova = foveate.tova(keep=0.4)
    check_even(tova, [mine, mine], Twins())
    with pytest.raises(foveate.MethodError, match="equally many"):
        check_even(replace(tova, budget=PooledHeads(Uniform(0.4))), [mine], Twins(other))
    check_even(foveate.h2o(keep=0.4, every=1), [mine], Twins(other))


def test_a_group_is_not_copied():
    group = MeshGroup(object(), 0, 2)
    assert copy.deepcopy({"group": group})["group"] is group
