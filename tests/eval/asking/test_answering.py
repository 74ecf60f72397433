"""Answers are those that a user gets by hand, in whatever batch, and kept is what reports say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache

import families
import foveate
from foveate import tiny
from foveate.cli.answers import prepare_chats
from foveate.cli.models import Loaded
from foveate.errors import InputError
from foveate.eval.asking.answering import Answerer, conversation
from foveate.eval.generated import Documents
from foveate.eval.metrics import metric
from foveate.eval.task import Message, Sample, Task
from foveate.eval.tasks import task
from foveate.tiny.vocabulary import IMAGE

METHODS = {
    "full": None,
    "snapkv": foveate.snapkv(keep=0.4),
    "aircache": foveate.aircache(keep=0.4),
    "h2o": foveate.h2o(keep=0.4),
    "lookm": foveate.lookm(keep=0.4),
    "random": foveate.random(keep=0.7),
}
EACH = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
BY_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


@pytest.fixture(scope="module")
def loaded():
    return Loaded("embedded", *tiny.load())


@pytest.fixture(scope="module")
def answerer(loaded):
    return Answerer(loaded)


@pytest.fixture(scope="module")
def samples():
    return {name: task(name).source.samples(6, 9)[:] for name in ("several-144", "second-144")}


def user(*parts):
    return Message("user", parts)


def prompt(loaded, sample):
    return prepare_chats(loaded, [conversation(sample.turns[0])])


def new_cache(loaded, method):
    if method is None:
        return DynamicCache(config=loaded.model.config)
    return foveate.CompressedCache(loaded.model, method)


@EACH
@pytest.mark.parametrize("name", ["several-144", "second-144"])
def test_a_batch_answers_like_its_rows_alone(answerer, samples, name, method):
    asked = samples[name]
    assert len({sum(len(m.parts[-1]) for m in sample.turns[0]) for sample in asked}) > 1, "padded"
    together = answerer.answers(task(name), asked, method)
    alone = [answerer.answers(task(name), [sample], method)[0] for sample in asked]
    for one, other in zip(together, alone, strict=True):
        assert (one.said, one.prompt) == (other.said, other.prompt)
        assert one.kept == pytest.approx(other.kept)
        assert one.bytes_full == pytest.approx(other.bytes_full, rel=0.1)


@EACH
def test_two_turns_answer_like_a_user_s_by_hand(loaded, answerer, samples, method):
    asked = samples["second-144"][:3]
    told = answerer.answers(task("second-144"), asked, method)
    for one, sample in zip(told, asked, strict=True):
        cache = new_cache(loaded, method)
        first = prompt(loaded, sample)
        out = loaded.model.generate(
            **first, past_key_values=cache, do_sample=False, max_new_tokens=8
        )
        words = loaded.processor.decode(out[0, first["input_ids"].shape[1] :])
        chat = conversation(sample.turns[0])
        chat += [{"role": "assistant", "content": words}, *conversation(sample.turns[1])]
        both = loaded.processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_tensors="pt"
        )
        given = {name: both[name] for name in BY_TOKEN if name in both}
        out = loaded.model.generate(
            **given, past_key_values=cache, do_sample=False, max_new_tokens=8
        )
        assert one.said == loaded.processor.decode(out[0, given["input_ids"].shape[1] :])


def test_compression_changes_what_a_later_turn_can_answer(answerer, samples):
    """Were the cache not handed on, the second turn would be as good as with the full one."""
    built_in, asked = task("second-144"), samples["second-144"]
    full = answerer.answers(built_in, asked, None)
    assert [one.said for one in full] == [sample.answers[0] for sample in asked]
    few = answerer.answers(built_in, asked, foveate.recency(keep=0.05))
    assert sum(one.said == other.said for one, other in zip(few, full, strict=True)) < 3


def test_without_a_method_it_is_plain_generate(loaded, answerer, samples):
    sample = samples["several-144"][0]
    (told,) = answerer.answers(task("several-144"), [sample], None)
    inputs = prompt(loaded, sample)
    out = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=8)
    assert told.said == loaded.processor.decode(out[0, inputs["input_ids"].shape[1] :])
    text = loaded.model.config.get_text_config()
    heads, width = text.num_key_value_heads, text.head_dim
    length = inputs["input_ids"].shape[1]
    expected = 2 * text.num_hidden_layers * heads * width * length * 4
    assert (told.kept, told.bytes_stored, told.bytes_full) == (1.0, expected, expected)


@pytest.mark.parametrize("method", [METHODS["snapkv"], METHODS["lookm"]], ids=["snapkv", "lookm"])
def test_what_was_kept_is_what_the_session_reports(loaded, answerer, samples, method):
    asked = samples["several-144"]
    told = answerer.answers(task("several-144"), asked, method)
    inputs = prepare_chats(loaded, [conversation(sample.turns[0]) for sample in asked])
    with foveate.compress(loaded.model, method) as session:
        loaded.model.generate(**inputs, do_sample=False, max_new_tokens=1)
    report = session.report
    assert {one.bytes_stored for one in told} == {report.bytes_stored // len(asked)}
    assert {one.bytes_full for one in told} == {report.bytes_full // len(asked)}
    assert told[0].bytes_stored < told[0].bytes_full
    assert sum(one.kept * 144 for one in told) == pytest.approx(report.kept_visual)


def test_kept_is_counted_by_row(loaded):
    method = foveate.adakv(keep=0.3)
    pages = [sample for n in (6, 9) for sample in Documents(grid=(n, 12)).samples(1, 1)]
    inputs = prepare_chats(loaded, [conversation(page.turns[0]) for page in pages])
    with foveate.compress(loaded.model, method) as session:
        loaded.model.generate(**inputs, do_sample=False, max_new_tokens=1)
    report, visual = session.report, inputs["input_ids"] == IMAGE
    for row, share in enumerate(report.share(visual).tolist()):
        kept = [report.kept(layer, row, head) for layer in range(6) for head in range(2)]
        stored = sum(int(visual[row, places].sum()) for places in kept)
        assert share == pytest.approx(stored / 12 / int(visual[row].sum()))
    assert report.share(torch.zeros_like(visual)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("storage", ["ragged", "static"])
def test_forms_of_storage(loaded, answerer, samples, storage):
    asked, method = samples["second-144"][:2], foveate.adakv(keep=0.5)
    told = Answerer(loaded, storage=storage).answers(task("second-144"), asked, method)
    dense = answerer.answers(task("second-144"), asked, method)
    assert [one.said for one in told] == [one.said for one in dense]
    assert [one.kept for one in told] == pytest.approx([one.kept for one in dense])
    assert told[0].bytes_stored != dense[0].bytes_stored


def test_pages_come_in_the_order_of_the_conversation(loaded, answerer):
    built_in = task("pages2-256")
    asked = built_in.source.samples(8, 1)[:]
    told = answerer.answers(built_in, asked, None)
    assert [one.said for one in told] == [sample.answers[0] for sample in asked]
    sample = asked[0]
    (message,) = sample.turns[0]
    one, other, question = message.parts
    alone = [prepare_chats(loaded, [conversation([user(p)])]) for p in (one, other)]
    pixels = torch.cat([inputs["pixel_values"] for inputs in alone])
    assert torch.equal(prompt(loaded, sample)["pixel_values"], pixels)
    turned = replace(sample, turns=((user(other, one, question),),))
    assert answerer.answers(built_in, [turned], None)[0].prompt != told[0].prompt


def test_a_prompt_s_digest_tells_pages_and_questions_apart(answerer, samples, tmp_path):
    asked = samples["several-144"][:2]
    page, question = asked[0].turns[0][0].parts

    def digest(*parts):
        sample = Sample("one", ((user(*parts),),), ("1",))
        return answerer.answers(task("lookup-144"), [sample], None)[0].prompt

    again = page.copy()
    again.putpixel((0, 0), tuple(255 - value for value in page.getpixel((0, 0))))
    page.save(tmp_path / "page.png")
    assert digest(page, question) == digest(tmp_path / "page.png", question)
    digests = {digest(page, question), digest(again, question), digest(page, question + " ")}
    assert len(digests) == 3 and {len(name) for name in digests} == {16}


def test_an_image_in_a_later_turn_is_refused(answerer, samples):
    sample = samples["second-144"][0]
    page = sample.turns[0][0].parts[0]
    late = replace(sample, turns=(*sample.turns, (user(page, "A?"),)))
    with pytest.raises(InputError, match="image in a later turn"):
        answerer.answers(task("second-144"), [late], None)


def test_a_sample_without_a_turn_is_refused(answerer):
    with pytest.raises(InputError, match="sample empty has no turn"):
        answerer.answers(WHOLE, [Sample("empty", (), ("1",))], None)


class Forgetful:
    """A processor whose chat template leaves the model's own answers out."""

    def __init__(self, processor):
        self.processor = processor

    def __getattr__(self, name):
        return getattr(self.processor, name)

    def apply_chat_template(self, chat, **options):
        kept = [message for message in chat if message["role"] == "user"]
        return self.processor.apply_chat_template(kept, **options)


@EACH
def test_a_template_that_rewrites_the_past_is_refused(loaded, samples, method):
    forgetful = Answerer(replace(loaded, processor=Forgetful(loaded.processor)))
    with pytest.raises(InputError, match="does not begin with the tokens that the cache has seen"):
        forgetful.answers(task("second-144"), samples["second-144"][:1], method)


def test_an_answer_that_was_cut_off_can_be_followed(answerer, samples):
    """Its last token is not in the cache yet, nor is the end that the template writes behind it."""
    short = replace(task("second-144"), max_new_tokens=1)
    (told,) = answerer.answers(short, samples["second-144"][:1], METHODS["snapkv"])
    assert len(told.said) == 1


def test_measures_hear_of_every_batch_of_one_turn(answerer, samples):
    calls = []

    def measures(loaded, inputs, method, max_new_tokens, *, said_ids, storage, quantized):
        calls.append((max_new_tokens, method, storage, quantized))
        ends = zip(inputs["input_ids"], said_ids, strict=True)
        return [{"sum": float(ids.sum() + said[0])} for ids, said in ends]

    asked = [*samples["several-144"][:2], samples["second-144"][0], samples["several-144"][2]]
    told = answerer.answers(task("several-144"), asked, METHODS["snapkv"], measures=measures)
    assert calls == [(8, METHODS["snapkv"], "dense", None)]
    assert [len(one.measures) for one in told] == [1, 1, 0, 1]
    assert told[0].said == samples["several-144"][0].answers[0]
    assert len({one.measures["sum"] for one in told if one.measures}) == 3


def llava(template):
    from cli.test_models import TEMPLATE, processor

    family = families.BY_NAME["llava-1.5"]
    made = processor(TEMPLATE if template else None)
    made.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return Loaded("llava", family.build().eval(), made)


WHOLE = Task("any", Documents(), metric("exact"), max_new_tokens=5)


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8))


@pytest.mark.parametrize("template", [True, False], ids=["chat template", "no template"])
def test_another_model_answers_in_batches(template):
    answerer = Answerer(llava(template))
    asked = [
        Sample("one", ((user(noise(0), " w7 w8 w9"),),), ("w4",)),
        Sample("two", ((user(noise(1), " w9 ", noise(2), " w7 w8 w10 w11"),),), ("w4",)),
    ]
    for method in (None, foveate.snapkv(keep=0.5, scope="visual")):
        together = answerer.answers(WHOLE, asked, method)
        alone = [answerer.answers(WHOLE, [sample], method)[0] for sample in asked]
        assert [one.said for one in together] == [one.said for one in alone]
        assert [one.prompt for one in together] == [one.prompt for one in alone]
        kept = 1.0 if method is None else 0.5
        assert [one.kept for one in together] == pytest.approx([kept, kept], abs=0.04)


def test_later_turns_of_another_model():
    answerer, page = Answerer(llava(True)), noise(0)
    answerer.loaded.model.generation_config.suppress_tokens = [0, 1, 2, families.IMAGE]
    asked = [
        Sample("one", ((user(page, "w7 w8 w9"),), (user("w12 w13"),)), ("w4",)),
        Sample("two", ((user(page, "w9"),), (user("w14 w12 w15 w16"),)), ("w4",)),
    ]
    for method in (None, foveate.snapkv(keep=0.5), foveate.h2o(keep=0.5)):
        together = answerer.answers(WHOLE, asked, method)
        alone = [answerer.answers(WHOLE, [sample], method)[0] for sample in asked]
        assert [one.said for one in together] == [one.said for one in alone]
        assert [one.kept for one in together] == pytest.approx([one.kept for one in alone])
