"""Many conversations in one model: who comes in, how prompts are read, how answers go on."""

from foveate.serve.engine.engine import Engine

__all__ = ["Engine"]
