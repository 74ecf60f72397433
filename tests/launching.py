"""Starts processes as `torchrun` does, offline and on the processor, and leaves none behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent


def environment() -> dict[str, str]:
    """This process's, with no accelerator, on the loopback device."""
    paths = [str(TESTS), *filter(None, sys.path)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


@contextmanager
def launched(*program: object, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Two processes of a program that share a port nobody else has; none of them is left."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    command += ["--max-restarts", str(restarts)]
    with subprocess.Popen(
        [sys.executable, *command, *map(str, program)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
