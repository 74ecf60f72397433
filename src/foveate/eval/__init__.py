"""What answers are worth under a compressed cache: tasks, metrics, a resumable grid, tables."""

from foveate.eval.record import Cell, Record, Run
from foveate.eval.task import Message, Metric, Sample, Source, Task

__all__ = ["Cell", "Message", "Metric", "Record", "Run", "Sample", "Source", "Task"]
