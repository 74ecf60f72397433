"""Read the images once, compress, and ask several questions of copies of the same cache."""

import copy

import torch

import foveate
from foveate import tiny
from foveate.tiny.documents import document

model, processor = tiny.load()
page = document(seed=11)


def prompt(text):
    """Return the model's inputs for the page and then the text."""
    picture = {"type": "image", "image": page.pages[0]}
    chat = [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]
    return processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


# What is kept is chosen by the first question; a later one finds what that one left.
first, *others = page.questions[:4]
cache = foveate.CompressedCache(model, foveate.foveate(keep=0.3))
inputs = prompt(first.text)
said = model.generate(**inputs, past_key_values=cache, max_new_tokens=8)
print(first.text, processor.decode(said[0, inputs["input_ids"].shape[1] :]))
for question in others:
    words = processor.tokenizer(question.text, return_tensors="pt")["input_ids"]
    ids = torch.cat([said, words], dim=1)
    output = model.generate(ids, past_key_values=copy.deepcopy(cache), max_new_tokens=8)
    answer = processor.decode(output[0, ids.shape[1] :])
    print(
        question.text, answer, "" if answer == question.answer else f"(it says {question.answer})"
    )
print(cache.report())
