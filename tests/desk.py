"""A reader at a desk: types what a document says in one folder, from top to bottom."""

import contextlib
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import types
import warnings
from pathlib import Path

import pytest
import typer
from doc_blocks import COMMANDS, blocks

from foveate import cli

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
OPERATORS = ("|", "||", "&", "&&", ";", ">", ">>", "<")
SERVER = re.compile(r"(?:127\.0\.0\.1|localhost):8000\b")


class Desk:
    """Runs the blocks of one document; programs share their names, commands a folder."""

    def __init__(self, folder, monkeypatch):
        self.monkeypatch = monkeypatch
        self.servers = []
        self.address = None  # of the last server, in place of the usual one
        self.program = types.ModuleType("program_of_a_document")
        monkeypatch.setitem(sys.modules, self.program.__name__, self.program)
        for name in ("examples", "benchmarks/results", "docs/charts"):
            shutil.copytree(ROOT / name, folder / name)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])  # commands add the folder
        monkeypatch.setenv("COLUMNS", "200")
        scripts = sysconfig.get_path("scripts")
        monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")

    def read(self, path):
        """Run all blocks of a document."""
        try:
            for block in blocks(path):
                if block.note.after:
                    self.run_programs_of(ROOT / block.note.after)
                sys.stderr.write(f"{path.name}, line {block.line}\n")  # shown where it fails
                self.run(block)
        finally:
            for server in self.servers:
                server.kill()
                server.communicate()

    def run_programs_of(self, path):
        """Run the programs of another document first."""
        for block in blocks(path):
            if block.language == "python" and not block.note.whole:
                self.run_program(block)

    def run(self, block):
        """Run a block as far as its note does not excuse it."""
        if block.note.file:
            Path(block.note.file).write_text(block.text)
        if block.language == "python":
            self.run_program(block)
        elif block.language in COMMANDS:
            for line, reason in block.commands():
                for command in made(line):
                    if reason:
                        check(command)
                    else:
                        self.run_command(longer(command, block.note.add), block.note.exits)

    def here(self, text):
        """Return a text with the address of the server that runs."""
        return SERVER.sub(self.address, text) if self.address else text

    def run_program(self, block):
        """Run Python, or see that it is Python."""
        code = compile(self.here(block.small), f"line {block.line}", "exec")
        if block.note.whole:
            return
        if not block.note.raises:
            exec(code, self.program.__dict__)
            return
        with pytest.raises(Exception) as caught:
            exec(code, self.program.__dict__)
        assert type(caught.value).__name__ == block.note.raises

    def run_command(self, command, exits=0):
        """Run one line of a shell, in this process if it is ours."""
        settings, words = parts(command)
        if {*words} & {*OPERATORS} or words[0] not in ("foveate", "python"):
            code = self.run_shell(self.here(command))
        else:
            for name, value in settings.items():
                self.monkeypatch.setenv(name, value)
            serves = words[:2] == ["foveate", "serve"] and "--help" not in words
            code = self.serve(words[1:]) if serves else self.run_here(words)
            for name in settings:
                self.monkeypatch.delenv(name)
        assert code == exits, f"{command}: exit code {code}"

    def run_here(self, words):
        """Return the exit code of `foveate ...`, `python -m ...` or `python FILE ...`."""
        start = 1 if words[0] == "foveate" else 3 if words[1] == "-m" else 2
        self.monkeypatch.setattr(sys, "argv", words[start - 1 :])
        try:
            if words[0] == "foveate":
                cli.main()
            elif words[1] == "-m":
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "'foveate.*found in sys.modules")
                    runpy.run_module(words[2], run_name="__main__")
            else:
                runpy.run_path(words[1], run_name="__main__")
        except SystemExit as stop:
            return stop.code or 0
        return 0

    def run_shell(self, command):
        """Return the exit code of anything else."""
        return subprocess.run(["bash", "-c", command], timeout=120).returncode

    def serve(self, words):
        """Start a server at a free port, which goes on until the document ends."""
        line = [sys.executable, "-m", "foveate", *words, "--port", "0"]
        server = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.servers.append(server)
        said = server.stdout.readline()  # empty if it ended
        if not said:
            return server.wait()
        self.address = re.search(r"http://([^/]+)/v1", said)[1]
        host, _, port = self.address.rpartition(":")
        while server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
                return 0
            time.sleep(0.05)
        return server.returncode


def longer(command, words):
    """Return a line with more words behind its own, before what it remarks."""
    return re.sub(r"\s+#.*", "", command) + f" {words}" if words else command


def parts(command):
    """Return the variables that a line sets for its command, and its words."""
    words = shlex.split(command, comments=True)
    settings = {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, settings[name] = words.pop(0).partition("=")
    return settings, words


def made(line):
    """Return the commands behind a line: of `make TARGET`, what make would run."""
    _, words = parts(line)
    if words[:1] != ["make"]:
        return [line]
    names = [word for word in words[1:] if "=" not in word]
    assert all(f"\n{name}:" in MAKEFILE for name in names), line
    if names == ["help"]:
        return [f"make -f {ROOT / 'Makefile'} help"]
    inside = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # set where make runs the tests
    told = subprocess.run(
        ["make", "-n", "-o", "setup", "VENV=.", *words[1:]],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in inside},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("./bin/", "")
    return told.splitlines()


def check(command):
    """See that the options of a command of ours exist, though it is not run."""
    _, words = parts(command)
    if words[:1] != ["foveate"] or "--help" in words:
        return
    name = words[1]
    given = words[2 : next((i for i, word in enumerate(words) if word in OPERATORS), None)]
    typer.main.get_command(cli.application((name,))).commands[name].make_context(name, given)
