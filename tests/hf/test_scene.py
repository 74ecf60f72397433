"""A report knows where the pictures of its prompts are, whatever was done with the cache."""

import json

import pytest
import torch

import families
import foveate
import gold
from families import Prompt
from foveate.hf.views import pictures
from foveate.picture import Picture
from seam import native_turns, two_turns

KNOWN = [families.BY_NAME[name] for name in (
    "qwen2-vl", "qwen3-vl", "llava-1.5", "llava-next", "llava-onevision", "gemma3", "mistral3",
)]  # fmt: skip
FAMILY = pytest.mark.parametrize("family", KNOWN, ids=str)
NEW = {"max_new_tokens": 3, "min_new_tokens": 3}


def cache_of(model):
    """Return a cache that keeps a quarter."""
    return foveate.CompressedCache(model, foveate.aircache(keep=0.25))


@FAMILY
def test_generate_and_forward_say_where_pictures_are(family):
    model, inputs = family.build(), family.inputs(3)
    said = [pictures(family.config(), inputs, row=row) for row in range(3)]
    assert [len(row) for row in said] == [1, 2, 1]
    with foveate.compress(model, foveate.aircache(keep=0.25)) as session:
        gold.generate(model, inputs, **NEW)
        model(**inputs)
        model.generate(inputs.pop("input_ids"), **inputs, **NEW, do_sample=False)
    for report in session.reports:
        assert [report.pictures(row) for row in range(3)] == said
    assert len(session.reports) == 3


def test_rows_of_beams_and_chosen_rows():
    family = families.BY_NAME["llava-next"]
    model, inputs = family.build(), family.inputs(3)
    said = [pictures(family.config(), inputs, row=row) for row in range(3)]
    cache = cache_of(model)
    model.generate(**inputs, past_key_values=cache, num_beams=2, **NEW)
    report = cache.report()
    assert [report.pictures(row) for row in range(6)] == [said[row // 2] for row in range(6)]
    cache.batch_select_indices(torch.tensor([5, 2, 2]))
    chosen = cache.report()
    assert [chosen.pictures(row) for row in range(3)] == [said[2], said[1], said[1]]
    assert chosen.pictures(-1) == said[1]
    with pytest.raises(foveate.InputError, match="row 3 was asked for, and the cache has 3"):
        chosen.pictures(3)
    assert [report.pictures(row) for row in range(6)] == [said[row // 2] for row in range(6)]


@pytest.mark.parametrize("family", [x for x in KNOWN if "qwen" not in x.name], ids=str)
def test_a_second_turn_adds_its_pictures(family):
    model, inputs = family.build(), family.inputs(3)
    cache = cache_of(model)
    recipe = (4, ("image", 1), 5)
    native_turns(family, model, inputs, recipe)
    _, report, turn, _ = two_turns(family, model, inputs, cache, recipe, cache.report)
    for row, count in enumerate((1, 2, 1)):
        first, both = report.pictures(row), cache.report().pictures(row)
        assert both[:count] == first and len(both) == count + 1
        visual = (turn["input_ids"][row] == families.IMAGE).nonzero().flatten().tolist()
        assert both[count].views[-1].positions[-1][-1] in visual[-2:]


def test_forward_passes_in_pieces():
    family = families.BY_NAME["mistral3"]
    model, prompt, more = family.build(), family.prompts(1)[0], family.prompt((4, ("image", 1), 5))
    whole = family.encode([Prompt(prompt.ids + more.ids, prompt.images + more.images)])
    said = pictures(family.config(), whole)
    cache = cache_of(model)
    with torch.no_grad():
        model(**family.encode([prompt]), past_key_values=cache)
        assert cache.report().pictures() == said[:1]
        tail = family.encode([more]) | {"attention_mask": whole["attention_mask"]}
        model(**tail, past_key_values=cache)
    assert cache.report().pictures() == said
    sizes = [(60, 50), (31, 17)]
    assert [one.size for one in cache.report().pictures(sizes=sizes)] == sizes
    with pytest.raises(foveate.InputError, match="sizes of 1 pictures came, and the row has 2"):
        cache.report().pictures(sizes=sizes[:1])
    cache.crop(len(prompt.ids) - cache.get_seq_length())
    assert cache.report().pictures() == said[:1]
    cache.crop(-4)
    other = family.prompt((("image", 2), 3))  # begins where the turn that was cut off has not
    again = Prompt(prompt.ids[:-4] + other.ids, prompt.images + other.images)
    tail = family.encode([other]) | {"attention_mask": family.encode([again])["attention_mask"]}
    with torch.no_grad():
        model(**tail, past_key_values=cache)
    assert cache.report().pictures() == pictures(family.config(), family.encode([again]))


def test_tiles_need_the_sizes_of_pictures():
    family = families.BY_NAME["internvl"]
    model, inputs = family.build(), family.inputs(1)
    with foveate.compress(model, foveate.aircache(keep=0.25)) as session:
        gold.generate(model, inputs, **NEW)
    with pytest.raises(foveate.InputError, match="state the pictures' sizes"):
        session.report.pictures()
    (wide,) = session.report.pictures(sizes=[(400, 90)])
    assert wide == pictures(family.config(), inputs, [(400, 90)])[0]
    assert wide.views[0].box == (0.0, 0.0, 0.25, 1.0) and wide.size == (400, 90)


def test_nothing_is_known_without_ids():
    family = families.BY_NAME["llava-1.5"]
    model, inputs = family.build(), family.inputs(1)
    cache = cache_of(model)
    with pytest.raises(foveate.InputError, match="nothing has passed through this cache yet"):
        cache.report().pictures()
    ids = inputs.pop("input_ids")
    embeds = model.get_input_embeddings()(ids)
    with torch.no_grad():
        model(inputs_embeds=embeds, **inputs, past_key_values=cache)
    assert cache.report().total_visual == 16
    with pytest.raises(foveate.InputError, match="no input_ids came"):
        cache.report().pictures()
    cache.reset()
    model.generate(input_ids=ids, **inputs, past_key_values=cache, **NEW)
    assert cache.report().pictures() == pictures(family.config(), {"input_ids": ids})
    with torch.no_grad():
        model(inputs_embeds=embeds[:, -5:], past_key_values=cache)
    with pytest.raises(foveate.InputError, match="no input_ids came"):
        cache.report().pictures()


def test_no_pixels_are_kept():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(3)
    with foveate.compress(model, foveate.aircache(keep=0.25)) as session:
        gold.generate(model, inputs, **NEW)
    scene = session.report._scene
    held = [scene.ids, *(x for _, beside in scene.turns for x in beside.values())]
    assert sum(x.numel() for x in held) == inputs["input_ids"].numel() + 3 * 4


def test_it_is_saved(tmp_path):
    for name in ("qwen2-vl", "internvl"):
        family = families.BY_NAME[name]
        model, inputs = family.build(), family.inputs(3)
        with foveate.compress(model, foveate.aircache(keep=0.25)) as session:
            gold.generate(model, inputs, **NEW)
        session.report.save(tmp_path / "report.json")
        saved = json.loads((tmp_path / "report.json").read_text())["pictures"]
        if name == "internvl":  # whose tiles cannot be placed without sizes
            assert saved == [None, None, None]
        else:
            again = [tuple(Picture.from_dict(one) for one in row) for row in saved]
            assert again == [session.report.pictures(row) for row in range(3)]
