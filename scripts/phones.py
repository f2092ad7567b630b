"""Measure simulated phones as a user would: the real adb server and the device daemons of the tests.

    python scripts/phones.py ways OUT [--python PYTHON] [--networks 20] [--effort standard]
    python scripts/phones.py shared OUT [--effort standard]

``ways``: ofa-profile --target pixel-1 and ofa-compare, by the tests' benchmark_model beside the phone, and by an agent
on it, whose PYTHON has grpcio, protobuf, numpy and ai-edge-litert. ``shared``: the same profile by one phone, by two,
and by two of which one is unplugged in the middle; they sleep instead of computing. Takes root and ai-edge-litert.
"""

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "phones"
COMMANDS = Path(sys.executable).parent
FOLDER = "/data/local/tmp/ofa-profile"
ROOM = "2g"  # for both ways' models
SPACE, PX = "compofa-fixed-w1.0", "128"
SLEEP = "sleep=5"  # ns for each byte of a model
PULLED_AT = 0.4  # of the time that two phones take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ways", "shared"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--networks", default="20")
    parser.add_argument("--effort", default="standard")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    lab = Lab(options.out)
    try:
        both_ways(lab, options) if options.what == "ways" else shared(lab, options.effort)
    finally:
        lab.end()


class Lab:
    """An adb server, phones, and a tool for them."""

    def __init__(self, out: Path) -> None:
        spec = importlib.util.spec_from_file_location("phones", TESTS / "conftest.py")
        assert spec
        assert spec.loader
        self._parts = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._parts)
        self.out = out.absolute()
        self.tool = self.out / "benchmark_model"
        self.tool.write_text(f"#!{sys.executable}\n{(TESTS / 'benchmark_model.py').read_text()}")
        self.tool.chmod(0o755)
        self._server = self._parts.AdbServer(self.out)
        self.phones: list = []

    def plug_in(self, serial: str) -> "object":
        phone = self._parts.Phone(self._server, self.out / serial, serial, size=ROOM)
        self.phones.append(phone)
        return phone

    def plug_in_slow(self, serial: str) -> "object":
        """One that sleeps instead of computing."""
        phone = self.plug_in(serial)
        digest = hashlib.sha256(self.tool.read_bytes()).hexdigest()[:12]
        phone.shell(f"mkdir -p {FOLDER}; echo {SLEEP} > {FOLDER}/benchmark_model-{digest}.stand_in")
        return phone

    def command(self, *words: str) -> dict:
        print(f"$ {' '.join(words)}", flush=True)
        home = {"OFA_AGENT_HOME": str(self.out / "agent")}
        done = subprocess.run(
            [COMMANDS / words[0], *words[1:], "--json"],
            cwd=self.out,
            env={**self._server.environment, **home},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        print(done.stdout, flush=True)
        return json.loads(done.stdout.splitlines()[-1])

    def end(self) -> None:
        for phone in self.phones:
            phone.end()
        self._server.end()


def both_ways(lab: Lab, options: argparse.Namespace) -> None:
    lab.plug_in("FA6A")
    beside = ("--runtime", "benchmark_model", "--set", f"benchmark_model={lab.tool}")
    on_it = ("--runtime", "tflite", "--set", f"python={options.python}")
    for name, way in (("beside", beside), ("on-it", on_it)):
        table = f"{name}.lut"
        how = ("--resolutions", "160", "--effort", options.effort, *way)
        lab.command("ofa-profile", "--target", "pixel-1", *how, "--out", table)
        networks = ("--networks", options.networks, "--calibrate", options.networks)
        lab.command("ofa-compare", "--table", table, *networks, "--out", f"{name}-compared")


def shared(lab: Lab, effort: str) -> None:
    lab.plug_in_slow("FA6A")
    alone_s = profiled(lab, effort, "one.lut")
    second = lab.plug_in_slow("FA6B")
    both_s = profiled(lab, effort, "two.lut")
    threading.Timer(PULLED_AT * both_s, second.unplug).start()
    profiled(lab, effort, "unplugged.lut")
    print(f"one phone {alone_s:.1f} s, two {both_s:.1f} s: {both_s / alone_s:.2f} × the time")


def profiled(lab: Lab, effort: str, table: str) -> float:
    """Seconds that it took; the table is complete."""
    started = time.monotonic()
    how = ("--runtime", "benchmark_model", "--set", f"benchmark_model={lab.tool}", "--effort", effort)
    summary = lab.command(
        *("ofa-profile", "--target", "pixel-1", "--space", SPACE, "--resolutions", PX, *how, "--out", table)
    )
    assert summary["measured"] == summary["entries"]
    return time.monotonic() - started


if __name__ == "__main__":
    main()
