"""The commands as a user runs them: processes of their own, with an agent folder of the test's own."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMANDS = Path(sys.executable).parent

# The smallest space there is: 36 entries, profiled in a few seconds.
SPACE = "compofa-fixed-w1.0"
PX = "128"


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out.splitlines()[-1])

    def fails(self, code, *words):
        """One clear line on standard error, no traceback, and all of ``words`` in it."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err
        return True


class Commands:
    """Runs our commands in a folder, against agents that keep their lock, models and log in ``home``."""

    def __init__(self, folder, home):
        self.folder = folder
        self.home = home
        self.environment = {**os.environ, "OFA_AGENT_HOME": str(home), "COLUMNS": "200"}

    def start(self, *words, **options):
        return subprocess.Popen(
            [COMMANDS / words[0], *map(str, words[1:])],
            **{
                "cwd": self.folder,
                "env": self.environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def __call__(self, *words, **options):
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=300)
        return Done(process.returncode, out, err)

    def rows(self, table, query, *values):
        """What a query finds in a table's file; the connection is closed, so that the next command may write."""
        with contextlib.closing(sqlite3.connect(self.folder / table)) as connection, connection:
            return connection.execute(query, values).fetchall()

    def profile(self, *more):
        return self(
            "ofa-profile",
            "--target",
            "local",
            "--space",
            SPACE,
            "--resolutions",
            PX,
            "--effort",
            "quick",
            "--json",
            *more,
        )


@pytest.fixture
def ofa(tmp_path):
    home = tmp_path / "agent"
    home.mkdir()
    return Commands(tmp_path, home)


@pytest.fixture(scope="session")
def profiled(tmp_path_factory):
    """A folder in which a table has been measured for real, once for all tests that only read it; ``done`` says how."""
    folder = tmp_path_factory.mktemp("profiled")
    home = folder / "agent"
    home.mkdir()
    commands = Commands(folder, home)
    commands.done = commands.profile()
    assert commands.done.code == 0, commands.done.err
    (folder / commands.done.json["table"]).rename(folder / "t.lut")
    return commands
