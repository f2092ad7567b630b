"""Kill the host, the agent or the worker with SIGKILL at random moments, and run the same command again each time."""

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
PATIENCE_S = 60.0
COMMAND = (
    *("ofa-profile", "--target", "local", "--space", "ofa-mbv3-w1.0", "--resolutions", "128,160"),
    *("--runtime", "by-macs", "--effort", "standard", "--out", "t.lut", "--json"),
)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")
def test_nothing_is_lost_and_nothing_counts_twice(by_macs, victim):
    chance = random.Random(20)
    killed = Counter()
    for number in range(ROUNDS):
        which = ("host", "agent", "worker")[number % 3]
        process = by_macs.start(*COMMAND)
        deadline = time.monotonic() + PATIENCE_S
        while (pid := victim(process.pid, which)) is None and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 1.5))
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[which] += 1
        if which != "host":
            time.sleep(chance.uniform(0.0, 1.5))  # it recovers by itself; cut it short there, too
            process.kill()
        process.communicate(timeout=60)
    done = by_macs(*COMMAND)
    assert done.code == 0, done.err
    assert sum(killed.values()) >= ROUNDS - 2, killed
    assert done.json["failed"] == 0
    assert done.json["entries"] == done.json["measured"] + done.json["reused"]

    rounds = by_macs.rows(
        "t.lut",
        "SELECT COUNT(DISTINCT round) FROM measurements WHERE status = 'ok' AND key NOT LIKE 'network:%' GROUP BY key",
    )
    assert rounds == [(8,)] * done.json["entries"]
    # A trial that the device was disturbed during is taken again, once.
    taken = by_macs.rows(
        "t.lut", "SELECT COUNT(*) FROM measurements WHERE status = 'ok' AND key LIKE 'network:%' GROUP BY key, round"
    )
    assert taken
    assert all(1 <= count <= 2 for (count,) in taken)
    kept = {trial_id for (trial_id,) in by_macs.rows("t.lut", "SELECT trial_id FROM measurements")}
    events = [
        json.loads(line) for line in (by_macs.home / "agent.log").read_text().splitlines() if line.startswith("{")
    ]
    acknowledged = {trial_id for event in events if event["event"] == "acknowledged" for trial_id in event["trial_ids"]}
    assert len(acknowledged) > 100
    assert acknowledged <= kept
    assert not list(by_macs.folder.glob("t.lut-*"))
