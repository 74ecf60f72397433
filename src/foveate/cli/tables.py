"""What commands that write tables of a model share: their options, and a table's head."""

from pathlib import Path
from typing import Annotated, Any

import typer

Seed = Annotated[int, typer.Option("--seed", min=0, help="Another seed, other pages.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of pictures with one JSON of texts and boxes instead."),
]


def described(kind: str, loaded: Any) -> dict[str, Any]:
    """Return the head of a table: what it is, and of which model."""
    from foveate.bench.result import versions
    from foveate.calibration.tables import VERSION
    from foveate.hf.watch import shape

    layers, query_heads, kv_heads = shape(loaded.model)
    name = Path(loaded.name).expanduser()
    return {
        "format": f"foveate-{kind}",
        "version": VERSION,
        "model": name.resolve().name if name.is_dir() else loaded.name,
        "model_type": loaded.model.config.model_type,
        "revision": getattr(loaded.model.config, "_commit_hash", None),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "versions": versions(),
        "layers": layers,
        "query_heads": query_heads,
        "kv_heads": kv_heads,
    }


def asked(data: Path | None, seed: int, prompt: str | None) -> dict[str, Any]:
    """Return which pages were read and how; the prompt is null where every page has its own."""
    if data is None:
        return {"seed": seed, "data": None, "prompt": prompt}
    return {"seed": None, "data": data.resolve().name, "prompt": prompt}


def check_folder(*files: Path | None) -> None:
    """Raise `InputError` before the work begins if a file's folder does not exist."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise unwritable(file, f"there is no folder {file.parent}")
        if file is not None and file.is_dir():
            raise unwritable(file, "it is a folder")


def unwritable(file: Path, why: object) -> Exception:
    """Return the error for a file that cannot be written."""
    from foveate.errors import InputError

    return InputError(
        f"{file} cannot be written: {why}; give a file of a fitting name, in a folder that exists "
        "and that you may write to"
    )
