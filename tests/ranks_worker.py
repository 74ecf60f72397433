"""One of several processes that work through the grid of `rehearsal`.

Run as `python -m torch.distributed.run --nproc-per-node 2 ranks_worker.py LOG PAUSE DIES`.
Beside LOG, process R leaves its id in LOG.pidR, and in LOG.endR how many samples it answered and
how many the log has. DIES is how many answers process 1 gives before it is killed, in its first
life.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import rehearsal
from foveate.eval.grid import Grid, run
from foveate.eval.running import ranks

ANSWERED: Counter[str] = Counter()


class Mortal(rehearsal.Rote):
    """Counts its answers, and is killed after so many."""

    def _answer(self, task, sample, method):
        if ANSWERED["mine"] == DIES and os.environ["RANK"] == "1":
            if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
        ANSWERED["mine"] += 1
        return super()._answer(task, sample, method)


def grid() -> Grid:
    """The grid: 400 samples."""
    return rehearsal.grid(number=20, seeds=(1, 2))


if __name__ == "__main__":
    OUT, PAUSE, DIES = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    setting = rehearsal.setting(pause=PAUSE, answerer=Mortal)
    with ranks.team() as team:
        Path(f"{OUT}.pid{team.rank}").write_text(str(os.getpid()))
        log = run(grid(), rehearsal.load, OUT, setting=setting, team=team)
        told = f"{ANSWERED['mine']} {len(log.records)}"
        Path(f"{OUT}.end{team.rank}").write_text(told)
    left = {file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")}
    assert not any("gloo" in name for name in left)  # such a thread can abort what ends well
