"""How closely a compressed cache follows the full one: exact cases, and a slow twin."""

import inspect
from dataclasses import fields, replace

import pytest
import torch
from transformers import cache_utils
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import families
import foveate
import gold
import reference.fidelity as twin
from families import EOS, IMAGE
from foveate.cli.models import load
from foveate.errors import InputError
from foveate.eval import fidelity as module
from foveate.eval.asking.answering import Answerer
from foveate.eval.fidelity import Fidelities, Fidelity, Reference, fidelity, masses, references
from foveate.eval.tasks import task
from foveate.hf import attended
from foveate.hf.cache import CompressedCache

MODES = ("qwen2-vl", "llava-onevision", "internvl", "gemma3")
FAMILIES = pytest.mark.parametrize("name", MODES)
ANSWERS = [[17, 90, 33, 61, 12], [45], [101, 8, EOS]]
CLOSE = {"rel": 1e-4, "abs": 2e-6}


def made(name, batch=3, **options):
    family = families.BY_NAME[name]
    return family, family.build(**options), family.inputs(batch)


def slow(family, model, prompt, method, answer):
    """The numbers of one row alone, by the twin."""
    inputs = family.encode([prompt])
    full, looks = twin.recited(model, inputs, answer, output_attentions=True)
    cache = CompressedCache(model, method)
    said = model.generate(
        **inputs, past_key_values=cache, do_sample=False, max_new_tokens=len(ANSWERS[0])
    )[0, len(prompt.ids) :].tolist()
    cache = CompressedCache(model, method)
    model.generate(**inputs, past_key_values=cache, do_sample=False, max_new_tokens=1)
    report = cache.report()
    heads = range(model.config.get_text_config().num_key_value_heads)
    kept = {i: [set(report.kept(i, 0, h).tolist()) for h in heads] for i in family.full_layers}
    ours, _ = twin.recited(model, inputs, answer, past_key_values=CompressedCache(model, method))
    visual = [i for i, token in enumerate(prompt.ids) if token == IMAGE]
    return Fidelity(
        agreement=twin.agreement(answer, said),
        divergence=twin.divergence(answer, said),
        kl=twin.kl(full, ours),
        perplexity=twin.perplexity(ours, answer),
        perplexity_full=twin.perplexity(full, answer),
        mass=twin.mass(looks, kept, range(len(prompt.ids))),
        mass_visual=twin.mass(looks, kept, visual),
    )


def check(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.to_dict() == pytest.approx(theirs.to_dict(), **CLOSE)


METHODS = {
    "aircache": lambda: foveate.aircache(keep=0.2),
    "ragged rows": lambda: foveate.method("adakv", keep=0.3, scope="visual"),
    "while decoding": lambda: foveate.method("h2o", keep=0.4, every=1),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "aircache") for name in MODES), ("internvl", "ragged rows"),
     ("qwen2-vl", "while decoding")],
)  # fmt: skip
def test_padded_batch_in_one_pass_is_every_row_alone_token_by_token(name, method):
    family, model, inputs = made(name)
    found = fidelity(model, inputs, METHODS[method](), ANSWERS)
    slowly = family.build(attention="eager")
    check(
        found,
        [
            slow(family, slowly, prompt, METHODS[method](), answer)
            for prompt, answer in zip(family.prompts(3), ANSWERS, strict=True)
        ],
    )
    assert all(0 < row.mass_visual < 1 and 0 < row.mass < 1 for row in found)
    assert found[0].kl > 1e-3 and found[1].kl == 0, "one token comes from the prompt's own pass"


@FAMILIES
def test_keeping_everything_changes_nothing(name):
    _, model, inputs = made(name)
    for row in fidelity(model, inputs, foveate.aircache(keep=1.0), max_new_tokens=9):
        length = row.divergence
        assert 1 <= length <= 9
        same = row.perplexity_full
        assert row == Fidelity(1.0, length, 0.0, same, same, 1.0, 1.0)


def test_eager_and_sdpa_agree():
    rows = []
    for attention in ("sdpa", "eager"):
        _, model, inputs = made("qwen2-vl", attention=attention)
        rows.append(fidelity(model, inputs, foveate.snapkv(keep=0.3), ANSWERS))
    check(*rows)


def test_random_choice_keeps_about_its_share_of_the_looks():
    _, model, inputs = made("internvl")
    whole = references(model, inputs, max_new_tokens=8)
    for keep in (0.1, 0.5):
        rows = [
            row
            for seed in range(6)
            for row in fidelity(
                model, inputs, foveate.method("random", keep=keep, seed=seed), reference=whole
            )
        ]
        assert sum(row.mass_visual for row in rows) / len(rows) == pytest.approx(keep, abs=0.05)
        assert all(row.mass > row.mass_visual for row in rows), "no text goes"


def test_a_reference_serves_many_methods():
    _, model, inputs = made("llava-onevision")
    whole = references(model, inputs, max_new_tokens=6)
    assert all(isinstance(row, Reference) for row in whole)
    for method in (foveate.aircache(keep=0.2), foveate.snapkv(keep=0.5)):
        again = fidelity(model, inputs, method, max_new_tokens=6)
        assert fidelity(model, inputs, method, reference=whole) == again
        assert [row.perplexity for row in whole] == [row.perplexity_full for row in again]


def test_texts_that_are_known_are_not_made_again(monkeypatch):
    _, model, inputs = made("internvl")
    method = foveate.aircache(keep=0.2)
    padded = torch.tensor([[17, 90, 33, 61, 12], [45, -100, -100, -100, -100],
                           [101, 8, EOS, -100, -100]])  # fmt: skip
    expected = fidelity(model, inputs, method, ANSWERS)
    monkeypatch.setattr(module, "greedy", lambda *_: pytest.fail("a text was made"))
    said = torch.tensor([[17, 90, 4, 61, 12], [45, 7, 7, 7, 7], [101, EOS, 0, 0, 0]])
    found = fidelity(model, inputs, method, padded, said_ids=said)
    assert [row.agreement for row in found] == [4 / 5, 1, 1 / 3]
    assert [row.divergence for row in found] == [2, 1, 1]
    for mine, theirs in zip(found, expected, strict=True):
        assert replace(mine, agreement=0, divergence=0) == replace(
            theirs, agreement=0, divergence=0
        )


def test_the_greedy_answer_is_what_generate_says():
    _, model, inputs = made("qwen2-vl")
    length = inputs["input_ids"].shape[1]
    said = model.generate(**inputs, do_sample=False, max_new_tokens=9)[:, length:].tolist()
    cut = [row[: row.index(EOS) + 1] if EOS in row else row for row in said]
    assert [list(row.answer) for row in references(model, inputs, max_new_tokens=9)] == cut


@pytest.mark.parametrize("storage", ["ragged", "auto", "static"])
def test_storage_changes_rounding_alone(storage):
    _, model, inputs = made("internvl")
    method = foveate.method("adakv", keep=0.3, scope="visual")
    dense, other = (
        fidelity(model, inputs, method, ANSWERS, storage=name) for name in ("dense", storage)
    )
    check(other, dense)


@pytest.mark.skipif(
    not hasattr(cache_utils, "Fp8QuantizedLayer"), reason="this transformers stores no fp8"
)
def test_rounding_of_the_store_shows_where_nothing_is_evicted():
    _, model, inputs = made("internvl")
    rows = fidelity(model, inputs, foveate.full(), ANSWERS, quantized="fp8")
    assert rows[0].mass == 1 and 0 < rows[0].kl < 0.1


@pytest.mark.parametrize("name", ["qwen2-vl", "internvl"])
def test_numbers_are_finite_in_bfloat16(name):
    _, model, inputs = made(name)
    model = model.bfloat16()
    for keep in (0.01, 1.0):
        for row in fidelity(model, inputs, foveate.aircache(keep=keep), max_new_tokens=6):
            assert all(torch.tensor(value).isfinite() for value in row.to_dict().values())
            assert 0 <= row.mass_visual <= 1 and row.kl >= 0
            assert keep < 1 or (row.kl, row.mass, row.agreement) == (0, 1, 1)


@pytest.mark.gpu
def test_a_gpu_finds_the_same():
    _, model, inputs = made("qwen2-vl")
    method = foveate.aircache(keep=0.2)
    expected = fidelity(model, inputs, method, ANSWERS)
    model, inputs = model.cuda(), {name: part.cuda() for name, part in inputs.items()}
    for mine, theirs in zip(fidelity(model, inputs, method, ANSWERS), expected, strict=True):
        assert mine.to_dict() == pytest.approx(theirs.to_dict(), rel=1e-3, abs=1e-5)
    for row in fidelity(model, inputs, foveate.full()):
        assert (row.kl, row.mass, row.agreement) == (0, 1, 1)


def test_a_prompt_without_images_loses_nothing():
    family, model, _ = made("internvl")
    inputs = family.encode([family.prompt((9,), 1), family.prompt((5,), 2)])
    for row in fidelity(model, inputs, foveate.aircache(keep=0.1), ANSWERS[:2]):
        assert (row.kl, row.mass, row.mass_visual) == (0, 1, 1)


def test_merged_tokens_count_where_they_are_stored():
    _, model, inputs = made("internvl")
    whole = references(model, inputs, ANSWERS)
    cache = CompressedCache(model, foveate.method("lookm", keep=0.3))
    gold.generate(model, inputs, past_key_values=cache)
    found = fidelity(model, inputs, cache.method, reference=whole)
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        one, kept = whole[row], 0.0
        for layer, received in one.attention.items():
            at = torch.arange(mask.shape[0])[mask].tolist()
            for head, given in enumerate(received.double().tolist()):
                stored = set(cache.report().kept(layer, row, head).tolist())
                kept += sum(x for j, x in zip(at, given, strict=True) if j in stored)
        total = sum(received.double().sum() for received in one.attention.values())
        assert found[row].mass == pytest.approx(float(kept / total), rel=1e-9)
        assert found[row].mass < 1


def test_nothing_stays_on_the_model_after_an_error(monkeypatch):
    _, model, inputs = made("internvl", attention="eager")
    before = dict(type(ALL_ATTENTION_FUNCTIONS)._global_mapping)

    def fails(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(attended, "column_stats", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        references(model, inputs, ANSWERS)
    assert type(ALL_ATTENTION_FUNCTIONS)._global_mapping == before
    assert model.config.get_text_config()._attn_implementation == "eager"
    assert not model._forward_pre_hooks and not model._forward_hooks
    assert "generate" not in vars(model)


def test_inside_a_context_of_the_model():
    _, model, inputs = made("internvl")
    expected = fidelity(model, inputs, foveate.snapkv(keep=0.3), ANSWERS)
    with foveate.compress(model, "aircache", keep=0.1):
        assert fidelity(model, inputs, foveate.snapkv(keep=0.3), ANSWERS) == expected


def test_what_cannot_be_compared_is_refused():
    _, model, inputs = made("internvl")
    method = foveate.aircache(keep=0.2)
    with pytest.raises(InputError, match="answers of 2 rows came for 3 prompts"):
        fidelity(model, inputs, method, ANSWERS[:2])
    with pytest.raises(InputError, match="row 1 has no answer"):
        fidelity(model, inputs, method, torch.tensor([[5, 6], [-100, -100], [7, -100]]))
    with pytest.raises(InputError, match="no input_ids"):
        fidelity(model, {"inputs_embeds": torch.zeros(1, 4, 48)}, method)
    whole = references(model, inputs, ANSWERS)
    with pytest.raises(InputError, match="reference has 2 rows and the inputs have 3"):
        fidelity(model, inputs, method, reference=whole[:2])


class Loaded:
    def __init__(self, model):
        self.model = model


def test_the_hook_asks_the_full_cache_once_for_all_methods(monkeypatch):
    _, model, inputs = made("internvl")
    methods = [foveate.aircache(keep=keep) for keep in (0.1, 0.5, 1.0)]
    expected = [fidelity(model, inputs, method, max_new_tokens=5) for method in methods]
    calls = []

    def counted(*args, **options):
        calls.append(args[2])
        return references(*args, **options)

    monkeypatch.setattr(module, "references", counted)
    measures, loaded = Fidelities(remembered=2), Loaded(model)
    said = model.generate(**inputs, do_sample=False, max_new_tokens=5)
    said = said[:, inputs["input_ids"].shape[1] :]
    assert measures(loaded, inputs, None, 5, said_ids=said, storage="dense") == [{}] * 3
    for method, rows in zip(methods, expected, strict=True):
        found = measures(loaded, inputs, method, 5, storage="dense", quantized=None)
        assert found == [row.to_dict() for row in rows]
    assert len(calls) == 1 and calls[0] is said
    for seed in (1, 2, 0):  # pixels differ; two are remembered
        other = families.BY_NAME["internvl"].inputs(3, seed)
        measures(loaded, other, foveate.aircache(keep=0.1), 5)
    assert len(calls) == 4


def test_an_answerer_tells_the_numbers_beside_its_answers():
    answerer, measures = Answerer(load()), Fidelities()
    asked = task("lookup-144")
    samples = asked.source.samples(5, 0)
    full = answerer.answers(asked, samples, None, measures=measures)
    assert [told.measures for told in full] == [{}] * 5
    for keep in (1.0, 0.02):
        method = foveate.aircache(keep=keep)
        told = answerer.answers(asked, samples, method, measures=measures)
        for mine, whole in zip(told, full, strict=True):
            assert set(mine.measures) == {field.name for field in fields(Fidelity)}
            assert (mine.measures["agreement"] == 1) == (mine.said == whole.said)
            assert keep < 1 or mine.measures["kl"] == 0
        differs = [mine.said != whole.said for mine, whole in zip(told, full, strict=True)]
        assert any(differs) == (keep < 1)


def test_masses_of_a_report_by_hand():
    """One layer, two heads, a pad in front; the first head loses position 2, which is visual."""

    class Report:
        def kept(self, layer, row, head):
            return torch.tensor([[1, 3], [1, 2, 3]][head])

    given = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.4, 0.5]])
    one = Reference((5,), torch.zeros(1, 4), {0: given}, torch.tensor([False, True, False]))
    valid = torch.tensor([False, True, True, True])
    mass, visual = masses(one, Report(), 0, valid)
    assert mass == pytest.approx(1 - 0.2 / 2) and visual == pytest.approx(1 - 0.2 / 0.6)


def test_arguments_are_those_of_the_guide():
    assert list(inspect.signature(fidelity).parameters)[:4] == [
        "model", "inputs", "method", "answer_ids",
    ]  # fmt: skip
