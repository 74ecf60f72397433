"""These tests run beside lmms-eval: `make test-lmms`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore = ["vicuna.py"]
if find_spec("lmms_eval") is None:
    collect_ignore_glob = ["*"]
else:
    from lmms_eval import evaluator
    from lmms_eval.models.model_utils.gen_metrics import reset_logged_metrics
    from lmms_eval.tasks import TaskManager

    from foveate.integrations.lmms_eval import TASKS

    @pytest.fixture(scope="session")
    def manager() -> TaskManager:
        """The tasks that lmms-eval knows, ours among them."""
        return TaskManager(include_path=str(TASKS))

    @pytest.fixture
    def evaluate(manager: TaskManager):
        """Run one of our example tasks, as lmms-eval's command does."""

        def run(model: str, arguments: str, task: str = "foveate_lookup", **options) -> dict:
            reset_logged_metrics()
            return evaluator.simple_evaluate(
                model=model,
                model_args=arguments,
                tasks=[task],
                task_manager=manager,
                bootstrap_iters=0,
                **options,
            )

        return run

    @pytest.fixture(scope="session")
    def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder with a tiny LLaVA of random weights."""
        from . import vicuna

        return vicuna.save(tmp_path_factory.mktemp("llava"))
