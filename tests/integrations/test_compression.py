"""Flat arguments become a method, settings and the rest; calls are summed up."""

import pytest

import foveate
from foveate.errors import CacheError, InputError, MethodError
from foveate.integrations.compression import Compression, Tally, take_apart
from foveate.tiny import documents, load

KNOWN = ("pretrained", "device")


def test_arguments_are_taken_apart():
    given = {"pretrained": "x", "method": "snapkv", "keep": 0.2, "window": 8, "storage": "ragged"}
    compression, rest = take_apart(given, KNOWN)
    assert compression.method == foveate.snapkv(keep=0.2, window=8)
    assert compression.settings == {"storage": "ragged"}
    assert rest == {"pretrained": "x"}


@pytest.mark.parametrize(
    "given, method",
    [
        ({"method": "h2o", "every": "none", "keep": "64"}, foveate.h2o(keep=64)),
        ({"method": "lookm", "merge": "none"}, foveate.lookm(merge="none")),
        ({"method": "lookm", "text_prior": "false"}, foveate.lookm(text_prior=False)),
        ({"method": "snapkv", "keep": "1.0"}, foveate.snapkv(keep=1.0)),
        ({"method": "mixkv+adakv", "alpha": 0.5}, foveate.method("mixkv+adakv", alpha=0.5)),
        ({"method": foveate.tova(keep=9)}, foveate.tova(keep=9)),
    ],
)
def test_words_are_read_as_on_the_command_line(given, method):
    assert take_apart(given, KNOWN)[0].method == method


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({}, InputError, "no method came; give method=NAME, one of .*aircache"),
        ({"method": "snapvk"}, MethodError, "'snapkv'"),
        ({"method": "snapkv", "devise": "cpu"}, InputError, "did you mean 'device'"),
        ({"method": "snapkv", "storrage": "x"}, InputError, "did you mean 'storage'"),
        ({"method": "mixkv", "devise": "cpu"}, MethodError, "devise"),
        ({"method": foveate.tova(), "keep": 0.1}, InputError, "beside a complete method"),
        ({"method": "snapkv", "keep": "some"}, InputError, "not a number"),
    ],
)
def test_what_nothing_knows_is_an_error(given, error, message):
    with pytest.raises(error, match=message):
        take_apart(given, KNOWN)


@pytest.fixture(scope="module")
def loaded():
    return load()


def prompt(processor):
    page = documents.document(3, grid=(8, 8))
    content = [{"type": "image", "image": page.pages[0]}, {"type": "text", "text": "AB?"}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_calls_are_summed_up(loaded):
    model, processor = loaded
    compression = Compression(foveate.aircache(keep=0.25), {"storage": "ragged"})
    for _ in range(2):
        with compression.on(model) as session:
            model.generate(**prompt(processor), max_new_tokens=2, do_sample=False)
        assert session.report.layers[0].storage == "ragged"
    told = compression.to_dict()
    assert (told["calls"], told["visual"], told["kept_visual"]) == (2, 128, 32.0)
    assert told["share_visual"] == 0.25
    assert told["share_text"] == 1.0
    assert told["bytes_stored"] == 2 * session.report.bytes_stored
    assert told["share_bytes"] == session.report.bytes_stored / session.report.bytes_full
    assert "kept 25.0% of 128 visual tokens and 100.0% of 10 text tokens" in str(compression.tally)
    assert "2 calls" in str(compression.tally)


def test_a_call_that_fails_is_not_counted(loaded):
    model, _ = loaded
    compression = Compression(foveate.aircache(keep=0.25))
    with pytest.raises(ZeroDivisionError), compression.on(model):
        raise ZeroDivisionError("while generating")
    assert str(compression.tally) == "nothing was generated"
    assert "share_visual" not in compression.to_dict()


def test_notes_are_told_once():
    tally = Tally(calls=3, notes={"the window is large": 3})
    assert str(tally).splitlines()[1:] == ["note, 3 times: the window is large"]


def test_check_raises_what_a_call_would(loaded):
    model, _ = loaded
    with pytest.raises(InputError, match="moist"):
        Compression(foveate.aircache(), {"storage": "moist"}).check(model)
    with foveate.compress(model, "aircache"), pytest.raises(CacheError):
        Compression(foveate.aircache()).check(model)
