"""What an engine tells of a prompt is what a report of the same prompt says, family by family."""

import pytest
from PIL import Image
from transformers import BatchFeature

import foveate
from easels import EASELS
from foveate.cli.models import Loaded
from foveate.report import collect
from foveate.serve import Engine
from foveate.serve.engine.asking import Ask, Done, Held
from foveate.serve.ui.look import Sight

SIZE = (131, 77)
NAMES = (
    "qwen2-vl", "qwen3-vl", "llava-next", "llava-onevision", "internvl", "idefics3", "gemma3",
)  # fmt: skip
# processors of transformers hand tensors to NumPy in a way that it gives up
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


class Templated:
    """The processor of an easel, for chats with one picture."""

    chat_template = "yes"

    def __init__(self, easel):
        self.easel, self.made = easel, easel.processor()

    def __getattr__(self, name):
        return getattr(self.made, name)

    def apply_chat_template(self, chat, **options):
        (image,) = [part["image"] for part in chat[0]["content"] if part["type"] == "image"]
        return BatchFeature(self.easel.prompts(self.made, [[image]]))


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_tells_what_a_report_says(name):
    easel = next(one for one in EASELS if one.name == name)
    model, processor = easel.build().eval(), Templated(easel)
    image, method = Image.new("RGB", SIZE, "white"), foveate.method("random", keep=0.5)
    prompt = processor.easel.prompts(processor.made, [[image]])
    told = collect(
        Loaded(name, model, processor.made), [image], "w10", ["random"], [0.5],
        inputs=prompt, max_new_tokens=2, measured=False,
    ).to_dict()  # fmt: skip
    content = [{"type": "image", "image": image}, {"type": "text", "text": "w10"}]
    ask = Ask([{"role": "user", "content": content}], 2, method=method, held=True)
    events = []
    engine = Engine(model, processor, chunk=8)
    engine.submit(ask, events.append)
    while engine.step():
        pass
    engine.stop()
    assert isinstance(events[0], Held) and isinstance(events[-1], Done), events
    sight = Sight(Loaded(name, model, processor), [SIZE], {}, {"method": "random", "keep": 0.5})
    seen = sight.of(events[0])
    pictures = [{**picture, "src": None} for picture in told["pictures"]]
    assert seen["pictures"] == pictures
    assert (seen["visual"], seen["prompt"]) == (told["visual"], list(told["prompt"]))
    (run,) = told["runs"]
    for part in ("budget", "visual_kept", "heads", "kept_visual", "kept_text", "window"):
        assert seen["run"][part] == run[part], part
