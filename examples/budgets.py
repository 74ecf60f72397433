"""The same question at several budgets: the answer, the bytes, and what each layer keeps."""

import foveate
from foveate import tiny
from foveate.tiny.documents import document

model, processor = tiny.load()
page = document(seed=7)
question = page.questions[0]
picture = {"type": "image", "image": page.pages[0]}
chat = [{"role": "user", "content": [picture, {"type": "text", "text": question.text}]}]
inputs = processor.apply_chat_template(
    chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
print(f"{question.text} is {question.answer}")
for keep in (1.0, 0.5, 0.2, 0.1, 0.05):
    with foveate.compress(model, foveate.aircache(keep=keep)) as session:
        output = model.generate(**inputs, max_new_tokens=8)
    report = session.report
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :])
    layers = " ".join(f"{layer.kept_visual:.0f}" for layer in report.layers)
    print(f"{keep:5.0%}  {answer:8} {report.bytes_stored:8,} bytes; per layer {layers}")
