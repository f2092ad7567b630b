"""``kill -9`` of the host, of the agent and of the worker at random moments, each followed by the same command."""

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

ROUNDS = 10
COMMAND = (
    *("ofa-profile", "--target", "local", "--space", "ofa-mbv3-w1.0", "--resolutions", "128,160"),
    *("--effort", "quick", "--out", "t.lut", "--json"),
)


def descendants(pid):
    """Children of all of a process's threads: the worker is started by the agent's measuring thread."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def victim(host, which):
    """The host, its agent, or that one's worker; None where it has not started yet."""
    with contextlib.suppress(OSError, IndexError):
        return {
            "host": lambda: host,
            "agent": lambda: descendants(host)[0],
            "worker": lambda: descendants(descendants(host)[0])[0],
        }[which]()
    return None


@pytest.mark.serial
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")
def test_nothing_is_lost_and_nothing_counts_twice(ofa):
    chance = random.Random(20)
    killed = Counter()
    for number in range(ROUNDS):
        which = ("host", "agent", "worker")[number % 3]
        process = ofa.start(*COMMAND)
        time.sleep(chance.uniform(0.3, 2.5))
        pid = victim(process.pid, which)
        if pid is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[which] += 1
        if which != "host":
            time.sleep(chance.uniform(0.0, 2.0))  # it recovers by itself; cut it short there, too
            process.kill()
        process.communicate(timeout=60)
    done = ofa(*COMMAND)
    assert done.code == 0, done.err
    assert sum(killed.values()) >= ROUNDS - 2, killed
    assert done.json["failed"] == 0
    assert done.json["entries"] == done.json["measured"] + done.json["reused"]

    rounds = ofa.rows(
        "t.lut",
        "SELECT COUNT(DISTINCT round) FROM measurements WHERE status = 'ok' AND key NOT LIKE 'network:%' GROUP BY key",
    )
    assert rounds == [(4,)] * done.json["entries"]
    # A trial that the device was disturbed during is taken again, once.
    taken = ofa.rows(
        "t.lut", "SELECT COUNT(*) FROM measurements WHERE status = 'ok' AND key LIKE 'network:%' GROUP BY key, round"
    )
    assert taken
    assert all(1 <= count <= 2 for (count,) in taken)
    kept = {trial_id for (trial_id,) in ofa.rows("t.lut", "SELECT trial_id FROM measurements")}
    events = [json.loads(line) for line in (ofa.home / "agent.log").read_text().splitlines() if line.startswith("{")]
    acknowledged = {trial_id for event in events if event["event"] == "acknowledged" for trial_id in event["trial_ids"]}
    assert len(acknowledged) > 100
    assert acknowledged <= kept
    assert not list(ofa.folder.glob("t.lut-*"))
