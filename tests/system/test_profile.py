"""``ofa-profile`` on this machine, as a user runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from ofa_nas.spaces import find_space

ROUNDS_OF_BLOCKS = (
    "SELECT COUNT(DISTINCT round) FROM measurements WHERE status = 'ok' AND key NOT LIKE 'network:%' GROUP BY key"
)


def test_every_entry_is_timed_in_every_round(profiled):
    every_entry_is_timed_in_every_round(profiled, profiled.done)


def test_every_entry_is_timed_in_every_round_alone(by_macs):
    every_entry_is_timed_in_every_round(by_macs, by_macs.profile("--out", "t.lut", "--blocks", "alone"))


def every_entry_is_timed_in_every_round(ofa, done):
    assert done.code == 0, done.err
    summary = done.json
    assert summary["entries"] == summary["measured"] == 36
    assert (summary["reused"], summary["failed"], summary["predicted"]) == (0, 0, 0)
    assert summary["trials"] >= 4 * 36
    assert 0 < summary["timed_seconds"] < summary["seconds"]
    assert ofa.rows("t.lut", ROUNDS_OF_BLOCKS) == [(4,)] * 36


def test_blocks_that_were_timed_otherwise_are_not_mixed(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    assert by_macs.profile("--out", "t.lut", "--blocks", "alone").fails(
        1, "blocks in-networks there, alone here", "--out"
    )


def test_a_finished_table_is_reused_and_another_resolution_added_to_it(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    again = by_macs.profile("--out", "t.lut").json
    assert (again["measured"], again["reused"], again["trials"]) == (0, 36, 0)
    wider = by_macs(
        *("ofa-profile", "--target", "local", "--space", "compofa-fixed-w1.0", "--resolutions", "128,132"),
        *("--runtime", "by-macs"),
        *("--effort", "quick", "--out", "t.lut", "--json"),
    ).json
    assert wider["reused"] >= 36
    assert wider["entries"] == wider["measured"] + wider["reused"] > 36


def test_fresh_starts_over_and_keeps_the_old_table(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    assert by_macs.profile("--out", "t.lut", "--fresh").json["measured"] == 36
    trials = "SELECT trial_id FROM measurements ORDER BY trial_id"
    assert by_macs.rows("t.lut.old", trials) == profiled_by_macs.rows("t.lut", trials)
    assert not set(by_macs.rows("t.lut", trials)) & set(by_macs.rows("t.lut.old", trials))


def test_the_default_file_is_named_by_what_was_measured(profiled):
    assert profiled.done.json["table"] == "local-onnxruntime-fp32-t1-b1.lut"


def test_ctrl_c_keeps_measurements_and_the_same_command_resumes(by_macs):
    process = by_macs.start(
        *("ofa-profile", "--target", "local", "--space", "compofa-fixed-w1.0", "--resolutions", "128"),
        *("--runtime", "by-macs"),
        *("--effort", "thorough", "--out", "t.lut"),  # so that it does not end before it is interrupted
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    log = by_macs.home / "agent.log"
    while not log.exists() or log.read_text().count("acknowledged") < 5:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    kept = by_macs.rows("t.lut", "SELECT trial_id FROM measurements")
    assert len(kept) >= 5
    assert not (by_macs.folder / "t.lut-wal").exists()
    assert by_macs.profile("--out", "t.lut").code == 0
    assert set(kept) < set(by_macs.rows("t.lut", "SELECT trial_id FROM measurements"))
    assert by_macs.rows("t.lut", ROUNDS_OF_BLOCKS) == [(4,)] * 36


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "lokal"], 2, ["no target named 'lokal'", "local"]),
        (["--target", "local", "--space", "ofa-mbv3-w1.1"], 2, ["no space named", "ofa-mbv3-w1.0"]),
        (["--target", "local", "--resolutions", "130"], 2, ["no resolution 130", "128", "132"]),
        (["--target", "local", "--resolutions", "big"], 2, ["160,192", "big"]),
        (["--target", "local", "--runtime", "onnxrt"], 2, ["no runtime named 'onnxrt'", "onnxruntime"]),
        (["--target", "local", "--threads", "0"], 2, ["--threads"]),
        (["--target", "local", "--set", "governor"], 2, ["key=value"]),
        (["--target", "local", "--set", "volume=11"], 2, ["volume"]),
        (["--target", "tcp:127.0.0.1"], 2, ["names no port"]),
        (["--target", "tcp:127.0.0.1:1"], 1, ["does not answer"]),
        (["--target", "local", "--out", "no/such/folder/t.lut"], 1, ["no/such/folder/t.lut"]),
        ([], 2, ["--target"]),
    ],
)
def test_a_wrong_call_gets_one_clear_line(ofa, words, code, said):
    done = ofa("ofa-profile", *words)
    assert done.fails(code, *said)


def test_a_table_of_other_settings_is_not_mixed(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    assert by_macs.profile("--out", "t.lut", "--threads", "2").fails(1, "threads 1", "2 here", "--fresh")


def test_a_table_of_another_device_is_not_mixed(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    by_macs.rows("t.lut", "UPDATE meta SET value = json_set(value, '$.fingerprint', 'another') WHERE name = 'identity'")
    assert by_macs.profile("--out", "t.lut").fails(1, "fingerprint another", "--out")


def test_a_precision_that_the_runtime_lacks_ends_the_run_with_its_reason(ofa):
    done = ofa.profile("--out", "t.lut", "--precision", "fp16")
    done.fails(1, "nothing can be measured", "unsupported: runtime onnxruntime does not support fp16")
    assert len(ofa.rows("t.lut", "SELECT 1 FROM measurements")) < 36
    assert ofa.profile("--out", "t.lut").code == 0  # nothing in that table is worth keeping


def test_a_second_run_on_a_device_names_the_holder(by_macs):
    agent = by_macs.start("ofa-agent", "serve")
    try:
        address = agent.stdout.readline().split()[-1]
        assert by_macs.profile("--out", "t.lut").fails(1, "already has an agent", str(agent.pid), address)
    finally:
        agent.terminate()
        agent.wait()


def test_some_entries_are_measured_and_the_others_predicted(by_macs):
    px = "128,132,136,140,144,148,152"
    words = ("--target", "local", "--space", "compofa-fixed-w1.0", "--resolutions", px, "--runtime", "by-macs")
    done = by_macs("ofa-profile", *words, "--seconds", "4", "--out", "t.lut", "--json")
    assert done.code == 0, done.err
    summary = done.json
    assert summary["measured"] > 0 < summary["predicted"]
    assert summary["entries"] == summary["measured"] + summary["predicted"]
    assert "expected error of networks: ±" in done.err
    again = by_macs("ofa-profile", *words, "--error", "90%", "--out", "t.lut", "--json").json
    assert (again["measured"], again["reused"], again["trials"]) == (0, summary["measured"], 0)
    shown = by_macs("ofa-table", "show", "t.lut", "--keys", "--json").json
    flagged = [entry for entry in shown["keys"] if "predicted" in entry["flags"]]
    assert len(flagged) == summary["predicted"]
    assert all(entry["trials"] == 0 and entry["half_width"] > 0 for entry in flagged)
    found = by_macs(
        *("ofa-search", "--table", "t.lut", "--space", "compofa-fixed-w1.0", "--max-latency-ms", "1000"),
        *("--resolutions", px, "--out", "found.json"),
    )
    named = re.search(r"\d blocks? not measured but predicted from the others", found.out) is not None
    assert named == bool(predicted_blocks(by_macs, "found.json"))
    (by_macs.folder / "other.json").write_text(json.dumps(network_with([entry["key"] for entry in flagged]).to_json()))
    assert predicted_blocks(by_macs, "other.json")


def network_with(keys):
    """Return a network that has one of these blocks."""
    space = find_space("compofa-fixed-w1.0")
    networks = space.decode(space.sample(4000, np.random.default_rng(0)))
    return next(
        network for network in networks if not {block.key for block in space.network_blocks(network)}.isdisjoint(keys)
    )


def predicted_blocks(by_macs, architecture):
    words = ("t.lut", "--space", "compofa-fixed-w1.0", "--architecture", architecture, "--json")
    return [block["key"] for block in by_macs("ofa-table", "predict", *words).json["blocks"] if block["predicted"]]


def test_conditions_are_set_for_the_run_or_reported_as_not_set(by_macs):
    done = by_macs.profile("--out", "t.lut", "--set", "affinity=0", "--set", "power-mode=0")
    assert done.code == 0, done.err
    assert "power-mode could not be set: this device does not have this setting" in done.err
    assert "affinity could not" not in done.err
    shown = by_macs("ofa-table", "show", "t.lut").out
    assert "affinity=0, power-mode=0 (not set: this device does not have this setting)" in shown
    assert not (by_macs.home / "conditions.json").exists()
    log = (by_macs.home / "agent.log").read_text()
    assert log.index('"event": "set"') < log.index('"event": "put back"')
    trials = by_macs.rows("t.lut", "SELECT condition FROM measurements WHERE status = 'ok'")
    assert all("load" in json.loads(condition) for (condition,) in trials)


def test_an_agent_that_serves_is_measured_with_over_tcp(by_macs):
    agent = by_macs.start("ofa-agent", "serve")
    try:
        address = agent.stdout.readline().split()[-1]
        done = by_macs(
            *("ofa-profile", "--target", f"tcp:{address}", "--space", "compofa-fixed-w1.0", "--resolutions", "128"),
            *("--runtime", "by-macs", "--effort", "quick", "--out", "t.lut", "--json"),
        )
        assert done.code == 0, done.err
        assert done.json["measured"] == 36
    finally:
        agent.terminate()
        agent.wait()


def test_a_full_disk_is_reported_and_stored_trials_stay(by_macs):
    room = by_macs.folder / "small"
    room.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", room], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        done = by_macs.profile("--out", "small/t.lut")
        assert done.fails(1, "no space", "small/t.lut", "run the command again")
        shutil.copytree(room, by_macs.folder / "roomy")
    finally:
        subprocess.run(["umount", room], check=True)
    kept = by_macs.rows("roomy/t.lut", "SELECT trial_id FROM measurements")
    assert kept
    assert by_macs.profile("--out", "roomy/t.lut").code == 0
    assert set(kept) < set(by_macs.rows("roomy/t.lut", "SELECT trial_id FROM measurements"))
    assert by_macs.rows("roomy/t.lut", ROUNDS_OF_BLOCKS) == [(4,)] * 36


def test_pytorch_is_a_runtime_like_any_other(ofa):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    done = ofa.profile("--runtime", "torch", "--out", "torch.lut")
    assert done.code == 0, done.err
    assert (done.json["measured"], done.json["failed"]) == (36, 0)
    assert {blocks for (blocks,) in ofa.rows("torch.lut", "SELECT count(DISTINCT key) > 36 FROM measurements")} == {1}


def test_threads_that_would_share_a_core_are_refused(by_macs):
    done = by_macs.profile("--out", "t.lut", "--threads", "2", "--set", "affinity=0")
    assert done.fails(1, "2 threads would share one core: the process may use only core 0", "use --threads 1")
    restricted = by_macs(
        "ofa-profile",
        *("--target", "local", "--space", "compofa-fixed-w1.0", "--resolutions", "128", "--runtime", "by-macs"),
        *("--threads", "2", "--out", "u.lut"),
        preexec_fn=lambda: os.sched_setaffinity(0, {0}),  # as with taskset, or in a container with a cpuset
    )
    assert restricted.fails(1, "2 threads would share one core", "use --threads 1")


def test_other_conditions_are_not_mixed_into_a_table(profiled_by_macs, by_macs):
    shutil.copy(profiled_by_macs.folder / "t.lut", by_macs.folder / "t.lut")
    done = by_macs.profile("--out", "t.lut", "--set", "affinity=0")
    assert done.fails(1, "t.lut was measured with no --set, this command uses --set affinity=0")


@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="needs the cores 0 and 1")
def test_a_refused_run_does_not_block_the_next_one(by_macs):
    refused = by_macs.profile("--out", "t.lut", "--threads", "2", "--set", "affinity=0")
    assert refused.fails(1, "2 threads would share one core")
    done = by_macs.profile("--out", "t.lut", "--threads", "2", "--set", "affinity=0,1")
    assert done.code == 0, done.err
    assert done.json["measured"] == 36
