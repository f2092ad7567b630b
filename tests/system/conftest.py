"""Run the commands as a user does: in separate processes, with a separate agent folder for each test."""

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ofa_tables.store import checksums

COMMANDS = Path(sys.executable).parent

# The smallest space: 36 entries.
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
    """Runs commands in a folder; agents keep their lock, models and log in ``home``.

    ``profile`` uses ``runtime``.
    """

    def __init__(self, folder, runtime, packages):
        self.folder = folder
        self.home = folder / "agent"
        self.home.mkdir()
        self.runtime = runtime
        path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, "OFA_AGENT_HOME": str(self.home), "COLUMNS": "200", "PYTHONPATH": path}

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
        """What a query finds in a table's file; the connection is closed, so that the next command may write.

        After a change, the checksums are those of the new values.
        """
        with contextlib.closing(sqlite3.connect(self.folder / table)) as connection, connection:
            found = connection.execute(query, values).fetchall()
            if query.startswith("UPDATE "):
                checksums.register(connection)
                connection.execute(checksums.storing(query.split()[1]))
            return found

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
            "--runtime",
            self.runtime,
            *more,
        )


@pytest.fixture(scope="session")
def packages(tmp_path_factory, install_sleeping):
    return install_sleeping(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="session")
def make_commands():
    return Commands


@pytest.fixture
def ofa(tmp_path, packages):
    return Commands(tmp_path, "onnxruntime", packages)


@pytest.fixture
def by_macs(tmp_path, packages):
    """Commands that profile with a runtime that sleeps, for tests of what happens around a measurement."""
    return Commands(tmp_path, "by-macs", packages)


@pytest.fixture(scope="session")
def profiled(tmp_path_factory, packages):
    """A folder with a table ``t.lut`` that was really measured, for tests that only read it; ``done``: the output."""
    return _profiled(tmp_path_factory, "onnxruntime", packages)


@pytest.fixture(scope="session")
def profiled_by_macs(tmp_path_factory, packages):
    """Like ``profiled``, with the runtime that sleeps."""
    return _profiled(tmp_path_factory, "by-macs", packages)


def _profiled(tmp_path_factory, runtime, packages):
    """Profile once for all test processes of this run: the first one measures, the others wait and copy its table."""
    commands = Commands(tmp_path_factory.mktemp("profiled"), runtime, packages)
    # With xdist, every process has its base folder in the folder of the run.
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / f"profiled-{runtime}"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            done = commands.profile()
            assert done.code == 0, done.err
            shared.mkdir()
            (shared / "done.json").write_text(json.dumps([done.code, done.out, done.err]))
            shutil.copy(commands.folder / done.json["table"], shared / "t.lut")
    commands.done = Done(*json.loads((shared / "done.json").read_text()))
    shutil.copy(shared / "t.lut", commands.folder)
    return commands


def descendants(pid):
    """Return the children of all threads of a process: a thread of the agent starts the worker."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def find_victim(host, which):
    """Return the pid of the host, its agent, or the worker of the agent; None if it has not started yet."""
    with contextlib.suppress(OSError, IndexError):
        return {
            "host": lambda: host,
            "agent": lambda: descendants(host)[0],
            "worker": lambda: descendants(descendants(host)[0])[0],
        }[which]()
    return None


@pytest.fixture
def victim():
    """Find a process of a run: victim(pid of the host, "host", "agent" or "worker")."""
    return find_victim
