"""What is handed over: one file of kept keys and values, and how a request names it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from foveate.errors import InputError

__all__ = ["CONNECTOR", "FORMAT", "PARAMETER", "Handoff", "transfer_config"]

FORMAT = "foveate-handoff-1"
PARAMETER = "foveate"  # the key in a request's kv_transfer_params
CONNECTOR = "FoveateConnector"


@dataclass(frozen=True)
class Handoff:
    """The compressed prompt of one conversation in a file, as vLLM is going to read it.

    `length` tokens are stored per layer and head, `first` is the token that follows them: the first
    one of the answer, which vLLM does not return again. `position` is where the model stood.
    """

    path: Path
    length: int
    first: int
    position: int
    layers: int
    heads: int
    width: int
    dtype: str
    method: str
    model: str

    @property
    def nbytes(self) -> int:
        """Return the bytes of the file."""
        return self.path.stat().st_size

    def prompt(self, after: Sequence[int] | None = None, placeholder: int = 0) -> list[int]:
        """Return the token ids of a request: placeholders for what is stored, then what follows.

        `after` is what is read behind the stored tokens, `[first]` if not given. Placeholders are
        never computed; any id of the vocabulary does.
        """
        follows = [self.first] if after is None else list(after)
        if not follows:
            raise InputError("nothing follows the stored tokens; give one token id or more")
        return [placeholder] * self.length + follows

    def parameters(self) -> dict[str, Any]:
        """Return `kv_transfer_params`: which file, and how many placeholders stand for it."""
        return {PARAMETER: {"file": self.path.name, "length": self.length}}

    def request(self, after: Sequence[int] | None = None) -> dict[str, Any]:
        """Return what the body of a request to /v1/completions has to hold."""
        return {"prompt": self.prompt(after), "kv_transfer_params": self.parameters()}

    def sampling_params_extra(self) -> dict[str, Any]:
        """Return the `extra_args` of vLLM's `SamplingParams`, to go with `prompt()`."""
        return {"kv_transfer_params": self.parameters()}

    def to_metadata(self) -> dict[str, str]:
        """Return what the file's header says."""
        known = {name: value for name, value in asdict(self).items() if name != "path"}
        return {"format": FORMAT, "handoff": json.dumps(known)}

    @staticmethod
    def read(path: str | Path) -> Handoff:
        """Return what the header of a file says, or raise `InputError` if it is not one of ours."""
        try:
            with safe_open(str(path), framework="pt") as file:
                return Handoff.of(Path(path), file.metadata())
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{Path(path).name} cannot be read ({error}); export the cache again"
            ) from error

    @staticmethod
    def of(path: Path, metadata: dict[str, str] | None) -> Handoff:
        """Return what a header says, or raise `InputError`."""
        metadata = metadata or {}
        if metadata.get("format") != FORMAT:
            raise InputError(
                f"{path.name} has the format {metadata.get('format')!r}, not {FORMAT!r}; give a "
                "file that foveate.integrations.vllm.export wrote"
            )
        try:
            return Handoff(path=path, **json.loads(metadata["handoff"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the header of {path.name} cannot be read ({error!r}); export the cache again"
            ) from error


def transfer_config(folder: str | Path) -> dict[str, Any]:
    """Return vLLM's `kv_transfer_config` for files in this folder; requests can name no others."""
    return {
        "kv_connector": CONNECTOR,
        "kv_connector_module_path": "foveate.integrations.vllm.connector",
        "kv_role": "kv_consumer",
        "kv_load_failure_policy": "fail",
        "kv_connector_extra_config": {"folder": str(Path(folder).resolve())},
    }
