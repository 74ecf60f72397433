"""These tests run beside vLLM's build for the CPU: `make test-vllm`."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore = ["asking.py", "words.py"]
if find_spec("vllm") is None:
    collect_ignore_glob = ["*"]
else:
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm import LLM

    from alone import wide
    from foveate.integrations.vllm import export_language_model, transfer_config

    from . import words

    OPEN = "Unclosed (context|socket)"

    def pytest_configure(config: pytest.Config) -> None:
        """Let vLLM leave sockets open when it ends: during a test, and behind the last one."""
        config.addinivalue_line("filterwarnings", f"ignore:{OPEN}:ResourceWarning")
        warnings.filterwarnings("ignore", OPEN, ResourceWarning)

    class Place:
        """A model, the folder of its language model, and one for what is handed over."""

        def __init__(self, name: str, folder: Path) -> None:
            self.family = wide(name)
            self.model = self.family.build()
            self.folder = folder / "model"
            export_language_model(self.model, self.folder, words.tokenizer())
            self.handed = folder / "handed"
            self.handed.mkdir()

        @contextmanager
        def engine(self, **settings) -> Iterator[LLM]:
            """Run vLLM on the language model."""
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                llm = LLM(
                    str(self.folder),
                    dtype="float32",
                    enforce_eager=True,
                    enable_prefix_caching=False,
                    generation_config="vllm",
                    kv_transfer_config=transfer_config(self.handed),
                    max_model_len=512,
                    disable_log_stats=False,
                    **settings,
                )
            try:
                yield llm
            finally:
                llm.llm_engine.engine_core.shutdown()

    @pytest.fixture(scope="session")
    def place(tmp_path_factory: pytest.TempPathFactory):
        """The place of a family, made once."""
        made: dict[str, Place] = {}

        def get(name: str) -> Place:
            if name not in made:
                made[name] = Place(name, tmp_path_factory.mktemp(name))
            return made[name]

        return get

    @pytest.fixture(scope="session")
    def engine(place):
        """vLLM on a family, started once."""
        made: dict[str, LLM] = {}
        with ExitStack() as running:

            def get(name: str) -> LLM:
                if name not in made:
                    made[name] = running.enter_context(place(name).engine())
                return made[name]

            yield get
            made.clear()
        gc.collect()  # now, while warnings of open sockets are ignored
