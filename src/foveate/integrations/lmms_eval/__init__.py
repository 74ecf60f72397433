"""lmms-eval with a compressed cache: the models `foveate` and `foveate_wrap`, and example tasks.

`python -m foveate.integrations.lmms_eval` prints the folder of the tasks, for `--include_path`.
"""

from pathlib import Path
from typing import Any

__all__ = ["TASKS", "manifests"]

TASKS = Path(__file__).with_name("tasks")


def manifests() -> list[Any]:
    """Return what lmms-eval registers: it finds this function among the entry points."""
    from lmms_eval.models.registry_v2 import ModelManifest

    here = __name__
    return [
        ModelManifest(model_id="foveate", chat_class_path=f"{here}.chat.Foveate"),
        ModelManifest(model_id="foveate_wrap", chat_class_path=f"{here}.wrapped.Wrap"),
    ]
