"""Text and images become model inputs; answers become text."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from foveate.errors import InputError
from foveate.tiny import CHECKPOINT
from foveate.tiny.processor import Processor
from foveate.tiny.vocabulary import CHARACTERS, IMAGE, PAD, decode, encode

PAGE = Image.new("RGB", (48, 32), "white")


@pytest.fixture(scope="module")
def processor():
    return Processor()


def turn(text, *images, role="user"):
    """One message."""
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


def inputs_of(processor, chats, **options):
    """Model inputs of conversations."""
    wanted = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return processor.apply_chat_template(chats, add_generation_prompt=True, **wanted, **options)


def test_every_character_survives(processor):
    ids = processor.tokenizer.encode(CHARACTERS)
    assert ids == encode(CHARACTERS)
    assert processor.decode(ids) == decode(ids) == CHARACTERS


def test_a_prompt_has_a_token_for_every_cell(processor):
    inputs = inputs_of(processor, [turn("AB?", PAGE)])
    assert inputs["input_ids"].shape == (1, 1 + 6 + 1 + 3)
    assert inputs["image_grid_thw"].tolist() == [[1, 2, 3]]
    assert inputs["pixel_values"].shape == (6, 1536)
    if processor.gives_token_types:
        assert torch.equal(inputs["mm_token_type_ids"], (inputs["input_ids"] == IMAGE).long())


def test_shorter_prompts_are_padded_on_the_left(processor):
    inputs = inputs_of(processor, [[turn("A?", PAGE)], [turn("ABC?", PAGE, PAGE)]])
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    short = int(mask[0].sum())
    assert ids[0, :-short].tolist() == [PAD] * (ids.shape[1] - short)
    assert mask[0].tolist() == [0] * (ids.shape[1] - short) + [1] * short
    alone = inputs_of(processor, [turn("A?", PAGE)])
    assert torch.equal(ids[0, -short:], alone["input_ids"][0])


def test_call_and_chat_template_agree(processor):
    chat = [turn("A?", PAGE), turn("12", role="assistant"), turn("B?")]
    text = processor.apply_chat_template(chat)
    assert text == "<|vision_start|><|image_pad|><|vision_end|>A?12<|im_end|>B?"
    called = processor(text=text, images=PAGE, return_tensors="pt")
    assert torch.equal(called["input_ids"], inputs_of(processor, chat)["input_ids"])


def test_plain_lists_come_without_return_tensors(processor):
    called = processor(text=["A?", "ABC?"], padding=True)
    assert [len(row) for row in called["input_ids"]] == [4, 4]
    assert processor(text="A?")["input_ids"] == [encode("A?")]


def test_images_may_be_paths_and_lists(processor, tmp_path):
    PAGE.save(tmp_path / "page.png")
    text = "<|vision_start|><|image_pad|><|vision_end|>A?"
    one = processor(text=text, images=str(tmp_path / "page.png"), return_tensors="pt")
    two = processor(text=[text], images=[[PAGE]], return_tensors="pt")
    assert torch.equal(one["pixel_values"], two["pixel_values"])


def test_answers_are_decoded_without_marks(processor):
    rows = torch.tensor([[PAD, *encode("A?12"), 1], [PAD, PAD, *encode("B 3"), 1]])
    assert processor.batch_decode(rows) == ["A?12", "B 3"]
    assert processor.decode(rows[0], skip_special_tokens=False) == "<pad>A?12<|im_end|>"


def test_the_shipped_tokenizer_is_the_one_in_the_code(processor):
    shipped = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert shipped.get_vocab() == processor.tokenizer.get_vocab()
    assert shipped("A?")["input_ids"] == encode("A?")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("abc?", "write it in capitals"),
        ("what is ABC?", "'ABC[?]' .value of key ABC.*sentences are for larger models"),
        ("Ä?", "'ABC[?]' .value of key ABC"),
        ("A\n", "A-Z, 0-9"),
    ],
)
def test_unknown_characters_are_named(processor, text, hint):
    with pytest.raises(InputError, match=f"cannot read.*{hint}"):
        processor(text=text)


def test_wrong_inputs_say_what_to_do(processor):
    with pytest.raises(InputError, match="1 images came for 0 places"):
        processor(text="A?", images=PAGE)
    with pytest.raises(InputError, match="no text came"):
        processor(images=PAGE)
    with pytest.raises(InputError, match="padding=True"):
        processor(text=["A?", "AB?"], return_tensors="pt")
    with pytest.raises(InputError, match="role 'system'"):
        processor.apply_chat_template([turn("A?", role="system")])
    with pytest.raises(InputError, match="type 'video'"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])
    with pytest.raises(InputError, match=r"Image\.fromarray"):
        processor(text="A?", images=np.zeros((16, 16, 3)))
    with pytest.raises(InputError, match=r"cannot read the image 'missing\.png"):
        processor(text="<|image_pad|>A?", images="missing.png")
