"""Prints the folder of the example tasks, for lmms-eval's `--include_path`."""

import sys

from foveate.integrations.lmms_eval import TASKS

if __name__ == "__main__":
    sys.stdout.write(f"{TASKS}\n")
