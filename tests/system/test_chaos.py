"""Forty runs with a fault each: processes that are killed or stopped, a full disk, a read-only disk.

After each fault the same command is run again until it succeeds. Nothing may be lost or counted twice, every failure is
one line, and no command takes a minute longer than without a fault.
"""

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

RUNS = 40
ROUNDS = 4  # of the effort quick
FAULTS = (
    *("kill host", "stop host", "kill agent", "stop agent", "kill worker", "stop worker"),
    *("disk full", "read-only disk", "disk of the agent full", "read-only disk of the agent"),
)
LATE_S = 60.0
ATTEMPTS = 4
TABLE_MB, AGENT_MB = 16, 64
COMMAND = (
    *("ofa-profile", "--target", "local", "--space", "compofa-fixed-w1.0", "--resolutions", "128"),
    *("--runtime", "by-macs", "--effort", "quick", "--json"),
)

pytestmark = [
    pytest.mark.slow,  # forty runs
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting small disks needs root"),
]


@pytest.fixture
def disks(by_macs):
    """A small disk for the table, and one for the agent."""
    mounted = []
    for folder, megabytes in ((by_macs.folder / "disk", TABLE_MB), (by_macs.home, AGENT_MB)):
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", folder], check=True)
        mounted.append(folder)
    yield mounted
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(disk):
    """Fill the disk for the rest of the run."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(disk):
    """Remount the disk read-only, if no file there is open for writing; otherwise fill it."""
    if subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode:
        with full(disk):
            yield
        return
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@contextlib.contextmanager
def stopped(pid, seconds):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    yield


@contextlib.contextmanager
def killed(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    yield


def fault(kind, process, disks, chance, victim):
    """The context in which the run goes on."""
    what, _, which = kind.partition(" ")
    if which in ("host", "agent", "worker"):
        pid = victim(process.pid, which)
        if pid is None:
            return contextlib.nullcontext()
        return killed(pid) if what == "kill" else stopped(pid, chance.uniform(1.0, 8.0))
    disk = disks[1] if kind.endswith("of the agent" if what == "read-only" else "of the agent full") else disks[0]
    return read_only(disk) if what == "read-only" else full(disk)


def finished(process, late_s):
    """Wait for a command. Return its exit code; it may print one line of error, and no traceback."""
    _, said = process.communicate(timeout=late_s)
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if process.returncode > 0:
        print(*errors, flush=True)
        assert len(errors) == 1 or "out-of-memory: " in said, said  # or each failed trial has a line
    return process.returncode


def counts(by_macs, table):
    rounds = by_macs.rows(
        table,
        "SELECT COUNT(DISTINCT round) FROM measurements WHERE status = 'ok' AND key NOT LIKE 'network:%' GROUP BY key",
    )
    repeated = by_macs.rows(
        table, "SELECT COUNT(*) FROM measurements WHERE status = 'ok' AND key LIKE 'network:%' GROUP BY key, round"
    )
    return [count for (count,) in rounds], max(count for (count,) in repeated)


def test_no_fault_loses_or_doubles_a_measurement(by_macs, disks, victim):
    began = time.monotonic()
    assert finished(by_macs.start(*COMMAND, "--out", "disk/undisturbed.lut"), 300) == 0
    usual_s = time.monotonic() - began
    entries = len(counts(by_macs, "disk/undisturbed.lut")[0])
    chance = random.Random(7)
    for number in range(RUNS):
        kind = FAULTS[number % len(FAULTS)]
        table = f"disk/{number}.lut"
        for attempt in range(ATTEMPTS):
            process = by_macs.start(*COMMAND, "--out", table)
            began = time.monotonic()
            context = contextlib.nullcontext()
            if attempt == 0:
                time.sleep(chance.uniform(0.3, usual_s))
                context = fault(kind, process, disks, chance, victim)
            with context:
                code = finished(process, usual_s + LATE_S)
            print(f"{number} {kind}: attempt {attempt}, exit code {code}, {time.monotonic() - began:.1f} s", flush=True)
            if code == 0:
                break
        assert code == 0, f"{kind}: still exit code {code} after {ATTEMPTS} attempts"
        rounds, most = counts(by_macs, table)
        assert rounds == [ROUNDS] * entries, kind
        assert most <= 2, kind  # a disturbed trial is taken again, once
        (by_macs.folder / table).unlink()
