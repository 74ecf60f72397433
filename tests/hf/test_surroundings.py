"""Around the model: pipelines, device maps, accelerate's hooks, evaluation loops."""

import pytest
import torch

import families
import foveate
import gold
from seam import by_context, check_selection

LLAVA = families.BY_NAME["llava-1.5"]


def processor():
    """A real LLaVA processor over a word-level tokenizer, without torchvision."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

    try:
        from transformers import CLIPImageProcessorPil as Images
    except ImportError:  # before 5.4
        from transformers import CLIPImageProcessor as Images
    words = {"<pad>": 0, "</s>": 1, "<s>": 2, "<image>": families.IMAGE}
    words |= {f"w{i}": i for i in range(3, families.VOCAB) if i != families.IMAGE}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="<s>",
        extra_special_tokens={"image_token": "<image>"}, padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    images = Images(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return LlavaProcessor(
        images, fast, patch_size=7, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{{ '<image> ' if c['type'] == 'image' else c['text'] + ' ' }}{% endfor %}{% endfor %}",
    )  # fmt: skip


def test_pipeline_from_an_image_file(tmp_path):
    from PIL import Image
    from transformers import pipeline

    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    picture.save(tmp_path / "noise.png")
    model = LLAVA.build()
    pipe = pipeline("image-text-to-text", model=model, processor=processor())
    chat = [{"role": "user", "content": [{"type": "image", "url": str(tmp_path / "noise.png")},
                                         {"type": "text", "text": "w7 w8 w9 w10"}]}]  # fmt: skip
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}

    def ask():
        return pipe(text=chat, generate_kwargs=options, return_full_text=False)[0]["generated_text"]

    untouched = ask()
    with foveate.compress(model, foveate.full()) as session:
        assert ask() == untouched
        assert ask() == untouched
    assert len(session.reports) == 2 and session.report.total_visual == 16
    with foveate.compress(model, foveate.aircache(keep=0.1)) as session:
        ask()
    assert sum(layer.kept_visual for layer in session.report.layers) == round(0.1 * 16 * 3)
    assert ask() == untouched


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2-vl", "gemma3"])
@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}], ids=str)
def test_model_loaded_with_a_device_map(tmp_path, name, device_map):
    from transformers import AutoModelForImageTextToText

    family = families.BY_NAME[name]
    family.build().save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path, device_map=device_map, dtype=torch.float32
    )
    model.eval()
    inputs = family.inputs(3)
    untouched = gold.generate(model, inputs)
    output, _ = by_context(family, model, inputs, foveate.full())
    assert gold.same(output, untouched)
    _, report = by_context(family, model, inputs, foveate.aircache(keep=0.2))
    check_selection(family, model, inputs, report, 0.2)


# transformers 4 takes the offloaded weights' device for the model's
@pytest.mark.filterwarnings("ignore:You are calling .generate.. with the `input_ids`:UserWarning")
def test_model_with_hooks_of_accelerate():
    from accelerate import cpu_offload

    model, inputs = LLAVA.build(), LLAVA.inputs(3)
    plain, told = by_context(LLAVA, model, inputs, foveate.aircache(keep=0.2))
    hooked = cpu_offload(LLAVA.build(), execution_device=torch.device("cpu"))
    output, report = by_context(LLAVA, hooked, inputs, foveate.aircache(keep=0.2))
    assert gold.distance(output, plain) <= gold.TOLERANCE
    assert torch.equal(report.kept(0, 1, 0), told.kept(0, 1, 0))


def test_evaluation_loop_over_different_prompts_in_one_context():
    family = families.BY_NAME["qwen2.5-vl"]
    model, method = family.build(), foveate.aircache(keep=0.2)
    batches = [
        family.inputs(1),
        family.inputs(3),
        family.encode([family.prompt((9,))]),
        family.inputs(1, seed=4),
    ]
    alone = [by_context(family, model, inputs, method)[0] for inputs in batches]
    with foveate.compress(model, method) as session:
        for inputs, expected in zip(batches, alone, strict=True):
            assert gold.same(gold.generate(model, inputs), expected)
    assert [report.total_visual for report in session.reports] == [20, 55, 0, 20]


def test_inference_mode_and_grad_mode_agree():
    family = families.BY_NAME["internvl"]
    model, inputs, method = family.build(), family.inputs(1), foveate.aircache(keep=0.2)
    with torch.inference_mode():
        a, _ = by_context(family, model, inputs, method)
    b, _ = by_context(family, model, inputs, method)
    assert gold.same(a, b)
