"""Any Hugging Face folder answers: here a small LLaVA with its processor, saved and loaded."""

import json

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

import families
import foveate
from foveate.calibration.tables import load_table
from foveate.cli import models

FAMILY = families.BY_NAME["llava-1.5"]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{{ '<image> ' if c['type'] == 'image' else c['text'] + ' ' }}"
    "{% endfor %}{% endfor %}"
)


def tokenizer():
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": 1, "<s>": 2, "<image>": families.IMAGE}
    words |= {f"w{i}": i for i in range(3, families.VOCAB) if i != families.IMAGE}
    words = Tokenizer(WordLevel(words, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    extra = {"image_token": "<image>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, extra_special_tokens=extra, **names)


def processor(template):
    import transformers

    # Without torchvision, releases from 5.4 on have the Pillow version under a name of its own.
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return transformers.LlavaProcessor(
        kind(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer(),
        patch_size=7,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=template,
    )


@pytest.fixture(params=[TEMPLATE, None], ids=["chat template", "no template"])
def folder(request, tmp_path):
    """Save the model with its processor, which has a chat template or has none."""
    FAMILY.build().save_pretrained(tmp_path / "llava")
    processor(request.param).save_pretrained(tmp_path / "llava")
    return str(tmp_path / "llava")


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_a_folder_answers(run, folder, photo):
    words = ("--model", folder, "--keep", "0.5", "--compare", "--max-new-tokens", "3", "--json")
    done = run("ask", photo, "w7 w8 w9", *words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["model"], found["visual_total"]) == (folder, 16)
    assert found["visual_kept"] == 8
    assert found["bytes_stored"] < found["full"]["bytes_stored"]


def test_a_folder_s_heads_are_scored(run, folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    words = [" ".join(f"w{i}" for i in range(100 + q, families.VOCAB, 4)) for q in range(4)]
    boxes = [(0, 0, 19, 19), (20, 0, 39, 19), (0, 20, 19, 39), (20, 20, 39, 39)]
    chunks = [{"text": t, "box": box} for t, box in zip(words, boxes, strict=True)]
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        Image.effect_noise((40, 40), 90).convert("RGB").save(data / name)
    pages = [{"image": name, "chunks": chunks} for name in names]
    (data / "pages.json").write_text(json.dumps(pages))
    out = tmp_path / "heads.json"
    options = ("--prompt", "w7 w8", "--max-new-tokens", "8", "--out", out, "--json")
    done = run("heads", "--model", folder, "--data", data, *options)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["model"], found["prompt"], found["pages"]) == ("llava", "w7 w8", 6)
    assert 0 < found["tokens_used"] < found["tokens"]
    load_table(out, "heads").check(folder, 3, 6, 2)
    Image.effect_noise((40, 30), 90).convert("RGB").save(data / "0.png")
    done = run("heads", "--model", folder, "--data", data, *options)
    assert (done.code, done.out) == (2, "")
    assert "give square pictures" in done.err


def test_everything_kept_answers_the_same(run, folder, photo):
    words = ("--model", folder, "--keep", "1.0", "--compare", "--max-new-tokens", "5", "--json")
    found = json.loads(run("ask", photo, "w7 w8 w9", *words).out)
    assert found["text"] == found["full"]["text"]


def test_number_type_and_attention_are_those_asked_for(folder):
    loaded = models.load(folder, dtype="bfloat16", attn="eager")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config.get_text_config()._attn_implementation == "eager"


@pytest.mark.parametrize("attn", ["telepathy", "flash_attention_2"])
def test_attention_that_is_not_there_is_explained(folder, attn):
    with pytest.raises(foveate.InputError, match=f"--attn '{attn}'.*doctor"):
        models.load(folder, attn=attn)


def test_folder_without_a_model_is_explained(tmp_path):
    with pytest.raises(foveate.InputError, match="image-text-to-text"):
        models.load(str(tmp_path))


def test_a_network_that_is_not_there_is_named():
    error = models._load_error("a/b", "model", OSError("We couldn't connect to the hub"))
    assert str(error).endswith("check the network and the id, or give a folder that holds one")


def test_id_that_cannot_be_had_is_explained():
    with pytest.raises(foveate.InputError, match=r"nobody/nothing.*cannot be loaded"):
        models.load("nobody/nothing")


def test_model_without_an_image_processor_is_explained(tmp_path):
    families.BY_NAME["llama"].build().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(foveate.MissingExtra, match="no image part"):
        models.load(str(tmp_path))
