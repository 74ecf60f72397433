"""Head scores against plain loops over the matrices that eager attention gives."""

import pytest
import torch

from families import BY_NAME, VISUAL
from foveate.calibration.boxes import Stated, region
from foveate.calibration.heads import Tally, concentration
from foveate.calibration.pages import Chunk, generated, only_chunk
from foveate.errors import InputError, UnsupportedModel
from foveate.hf.watch import Watched, greedy, most_attended, shape
from reference.heads import scores as reference_scores

STEPS = 5


@torch.no_grad()
def matrices(model, inputs, steps):
    """Return the greedy answer and [token][layer][head] rows, each token from a pass over all."""
    tokens, rows = [], []
    inputs = dict(inputs)
    for _ in range(steps):
        output = model(**inputs, use_cache=False, output_attentions=True)
        rows.append([layer[0, :, -1].tolist() for layer in output.attentions])
        tokens.append(int(output.logits[0, -1].argmax()))
        if tokens[-1] == model.generation_config.eos_token_id:
            break
        for name, value in (("input_ids", tokens[-1]), ("attention_mask", 1)):
            inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], -1)
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.tensor([[0]])], -1)
    return tokens, rows


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", VISUAL, ids=str)
def test_where_heads_look_is_where_the_matrices_say(family, attention):
    inputs = family.inputs(1)
    tokens, looked = greedy(family.build(attention=attention), inputs, STEPS)
    expected, rows = matrices(family.build(attention="eager"), inputs, STEPS)
    assert tokens == expected
    found = [[[max(range(len(r)), key=r.__getitem__) for r in l] for l in step] for step in rows]  # noqa: E741
    assert looked.tolist() == found


def test_the_model_is_left_as_it_was():
    family = BY_NAME["qwen2-vl"]
    model, inputs = family.build(attention="eager"), family.inputs(1)
    before = model(**inputs).logits
    greedy(model, inputs, 3)
    assert torch.equal(model(**inputs).logits, before)
    assert model.config.get_text_config()._attn_implementation == "eager"


def test_the_score_is_that_of_plain_loops():
    family = BY_NAME["qwen2-vl"]
    model, eager = family.build(), family.build(attention="eager")
    letters = "abcdefghijklmnopqrstuvwxyz"
    cells, size = None, (83, 61)
    tally, answers = Tally.empty(*shape(model)[:2]), []
    for seed in range(12):
        inputs = family.inputs(1, seed)
        visual = (inputs["input_ids"][0] == 200).nonzero().flatten().tolist()
        cells = Stated(4, 5).cells(visual)
        chunks = [
            Chunk(letters[i : i + 4], (5 * i - 10, i, 5 * i + 19, 2 * i + 9)) for i in (2, 5, 9)
        ]
        tokens, looked = greedy(model, inputs, STEPS)
        texts = [letters[token % 16] for token in tokens]
        tally.add(texts, looked, chunks, cells, size)
        tally.pages += 1
        rows = matrices(eager, inputs, STEPS)[1]
        answers.append((texts, rows, [(c.text, c.box) for c in chunks], cells, size))
    expected, used = reference_scores(answers)
    table = tally.table()
    assert 5 < table["tokens_used"] == used < table["tokens"]
    assert len(expected) > 3
    for layer, row in enumerate(table["scores"]):
        for head, value in enumerate(row):
            assert value == pytest.approx(expected.get((layer, head), 0.0), abs=1e-12)


def test_masks_windows_and_groups_decide_where_a_query_looks():
    keys = torch.eye(4)[None].repeat(2, 1, 1)
    query = torch.tensor([[0.0, 3, 1, 2], [9, 0, 8, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    assert most_attended(query, keys, 1.0).tolist() == [1, 0, 3, 0]
    assert most_attended(query, keys, 1.0, window=2).tolist() == [3, 2, 3, 2]
    seen = torch.tensor([True, False, True, True])[None, None, None]
    assert most_attended(query, keys, 1.0, seen).tolist() == [3, 0, 3, 0]
    added = torch.tensor([-20.0, 0, 0, 0])[None, None, None]
    assert most_attended(query, keys, 1.0, added).tolist() == [1, 2, 3, 1]


def test_a_token_counts_if_exactly_one_chunk_has_its_text():
    chunks = [Chunk("Total 12", (0, 0, 1, 1)), Chunk("12 May", (2, 2, 3, 3))]
    assert only_chunk("Tot", chunks) is chunks[0]
    assert only_chunk("May", chunks) is chunks[1]
    assert only_chunk(" 12", chunks) is chunks[0]
    assert only_chunk("12", chunks) is None
    assert only_chunk("June", chunks) is None
    assert only_chunk("", chunks[:1]) is None
    assert only_chunk(" ", chunks[:1]) is None
    assert only_chunk("▁Total", chunks) is None


def test_regions_on_known_boxes():
    cells = Stated(3, 4).cells(range(100, 112))
    size = (40, 30)
    assert region(cells, size, (0, 0, 9, 9)) == (100,)
    assert region(cells, size, (0, 0, 10, 9)) == (100, 101)
    assert region(cells, size, (9, 9, 10, 10)) == (100, 101, 104, 105)
    assert region(cells, size, (30, 20, 39, 29)) == (111,)
    assert region(cells, size, (30, 20, 40, 30)) == (111,)
    assert region(cells, size, (-5, -5, 500, 500)) == tuple(range(100, 112))
    assert region(cells, (1000, 700), (260, 0, 480.5, 200)) == (101,)
    assert region(cells, (3, 2), (1, 1, 1, 1)) == (105,)


def test_nothing_seen_is_an_error_that_says_so():
    tally = Tally.empty(2, 2)
    with pytest.raises(InputError, match="of 0 generated tokens 0"):
        tally.table()
    cells = Stated(1, 2).cells([5, 6])
    tally.add(
        ["a"], torch.zeros(1, 2, 2, dtype=torch.long), [Chunk("a", (0, 0, 1, 1))], cells, (4, 2)
    )
    with pytest.raises(InputError, match="of 1 generated tokens 1"):
        tally.table()


def test_concentration():
    found = concentration([[0.5] + [0.0] * 9, [0.25, 0.25] + [0.0] * 8])
    assert found == {"top_5_percent": 0.5, "top_10_percent": 0.75, "heads": 20, "zero_heads": 17}


def test_generated_pages_know_where_their_text_is():
    for number in range(8):
        page = generated(number, seed=3)
        large = generated(number, seed=3, prompt="Read.", scale=2)
        assert page.chunks and page.prompts
        assert large.prompts == ("Read.",)
        assert large.image.size == (2 * page.image.width, 2 * page.image.height)
        for one, two in zip(page.chunks, large.chunks, strict=True):
            left, top, right, bottom = one.box
            assert (right + 1 - left, bottom + 1 - top) == (16 * len(one.text), 16)
            assert two.box == (2 * left, 2 * top, 2 * right + 1, 2 * bottom + 1)
            assert right < page.image.width and bottom < page.image.height
            part = page.image.crop((left, top, right + 1, bottom + 1))
            assert (
                len(
                    set(
                        part.getdata()
                        if not hasattr(part, "get_flattened_data")
                        else part.get_flattened_data()
                    )
                )
                > 1
            )
    assert generated(1, seed=3) == generated(1, seed=3) != generated(1, seed=4)


def test_layers_without_attention_have_no_place(monkeypatch):
    model = BY_NAME["qwen2-vl"].build()
    watched = Watched(model)
    assert len(watched.cache.layers) == 3
    monkeypatch.setattr(model.config.get_text_config(), "num_key_value_heads", 4)
    with pytest.raises(UnsupportedModel, match="6 query heads and 4"):
        shape(model)
