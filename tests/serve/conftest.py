"""Servers that follow a script."""

import pytest

from foveate.serve import Settings
from serving import Script, hello, served


@pytest.fixture
def serve():
    """Serve a script with settings, until the test is over."""
    contexts = []

    def start(events=hello, engine=None, **settings):
        contexts.append(served(engine or Script(events), Settings(**settings)))
        return contexts[-1].__enter__()

    yield start
    for context in reversed(contexts):
        context.__exit__(None, None, None)
