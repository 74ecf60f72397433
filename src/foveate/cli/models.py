"""Loads the embedded model, or any vision-language model of Hugging Face, ready to answer."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from foveate.cli import torchvision
from foveate.errors import FoveateError, InputError, MissingExtra

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device, and the processor that belongs to it."""

    name: str
    model: Any
    processor: Any


def load(
    name: str | None = None, dtype: str = "auto", device: str = "auto", attn: str | None = None
) -> Loaded:
    """Return the model of that id or folder; without a name, the embedded one."""
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r} is not known; choose from {', '.join(DTYPES)}")
    place = find_device(device)
    if name is None:
        model, processor = _embedded(dtype, attn)
    else:
        processor = _processor(name)
        model = _hub_model(name, dtype, attn)
    return Loaded(name or "embedded", model.to(place).eval(), processor)


def find_device(name: str) -> torch.device:
    """Return the device of that name; auto is the first GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).fill_(0).item()  # meta can hold tensors, but no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}; `foveate "
            "doctor` lists the devices"
        ) from error
    return device


def _embedded(dtype: str, attn: str | None) -> tuple[Any, Any]:
    from foveate import tiny

    model, processor = tiny.load()
    if dtype != "auto":
        model = model.to(getattr(torch, dtype))
    if attn is not None:
        try:
            model.set_attn_implementation(attn)
        except (ValueError, ImportError) as error:
            raise _attention_error(attn, error) from error
    return model, processor


def _processor(name: str) -> Any:
    from transformers import AutoProcessor

    if not Path(name).expanduser().is_dir():
        stay_offline_without_hub()
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise InputError(f"there is no folder {name}; give a folder with a model, or its id")
    try:
        processor = AutoProcessor.from_pretrained(
            str(Path(name).expanduser()) if "~" in name else name
        )
    except Exception as error:
        raise _load_error(name, "processor", error) from error
    if not hasattr(processor, "image_processor"):
        raise _vision_error(name, "its processor has no image part")
    return processor


def stay_offline_without_hub(seconds: float = 5.0) -> None:
    """Tell the hub's client to use what it holds, if the hub does not answer in time.

    The client would try every file again and again, for minutes.
    """
    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or getproxies() or hub.hostname is None:
        return
    try:
        port = hub.port or (443 if hub.scheme == "https" else 80)
        socket.create_connection((hub.hostname, port), timeout=seconds).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def _hub_model(name: str, dtype: str, attn: str | None) -> Any:
    from transformers import AutoModelForImageTextToText

    place = str(Path(name).expanduser()) if "~" in name else name
    given = {} if attn is None else {"attn_implementation": attn}
    try:
        return AutoModelForImageTextToText.from_pretrained(place, dtype=dtype, **given)
    except Exception as error:
        if attn is not None and (attn in str(error) or "attention" in str(error).lower()):
            raise _attention_error(attn, error) from error
        raise _load_error(name, "model", error) from error


def _attention_error(attn: str, error: Exception) -> FoveateError:
    return InputError(
        f"--attn {attn!r} cannot be used with this model here: {_first_line(error)}; sdpa and "
        "eager always can, and `foveate doctor` lists the others"
    )


def _load_error(name: str, part: str, error: Exception) -> FoveateError:
    """Return the readable form of whatever transformers raised while it loaded something."""
    if isinstance(error, ImportError | AttributeError | RuntimeError) and any(
        word in str(error) for word in ("torchvision", "VIDEO_PROCESSOR", "_extra_content")
    ):
        return _vision_error(name, _first_line(error))
    if isinstance(error, ImportError):
        return MissingExtra(f"the {part} of {name} needs a package: {error}")
    cure = "give the id of an image-text-to-text model or a folder that holds one"
    if "connect" in str(error):
        cure = "check the network and the id, or give a folder that holds one"
    return InputError(f"the {part} of {name} cannot be loaded: {_first_line(error)}; {cure}")


def _vision_error(name: str, what: str) -> FoveateError:
    found = torchvision.state()
    cure = found.cure(torch.__version__) or "the model may have no image processor at all"
    return MissingExtra(f"{name}: {what}; torchvision: {found.detail}. Cure: {cure}")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
