"""Rows answered by as many processes as were launched, each on an accelerator of its own.

Alone it answers all: `python examples/many_processes.py`; in two processes half each: `accelerate
launch --multi-gpu --num-processes 2 examples/many_processes.py` (on processors, too), or the same
by `torchrun --nproc-per-node 2`.
"""

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from foveate.integrations.ray import BatchGenerator
from foveate.tiny.documents import document

pages = [document(seed, layout="rows", grid=(6, 7)) for seed in range(10)]
rows = [{"image": page.pages[0], "question": page.questions[0].text} for page in pages]

state = PartialState(cpu=not torch.cuda.is_available())
generate = BatchGenerator(method="foveate", keep=0.3, max_new_tokens=8, device=str(state.device))
found = []
with state.split_between_processes(rows) as mine:
    for start in range(0, len(mine), 4):
        batch = mine[start : start + 4]
        said = generate({name: [row[name] for row in batch] for name in rows[0]})
        found += zip(said["question"], said["answer"], said["error"], strict=True)
found = gather_object(found)
if state.is_main_process:
    for question, answer, error in found:
        print(question, answer or f"({error})")
state.destroy_process_group()
