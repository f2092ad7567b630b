"""Demo on this machine: profile, search, measure the network that was found. Writes to build/demo."""

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path("build/demo")
SPACE = "ofa-mbv3-w1.0"
LIMIT_OF_RANGE = 0.4
COMMANDS = Path(sys.executable).parent


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    table, found = str(FOLDER / "local.lut"), str(FOLDER / "found.json")

    say("1. Profile: time every block of the space on this machine, at 160 px")
    profiled = command(
        *("ofa-profile", "--target", "local", "--space", SPACE, "--resolutions", "160"), *("--out", table, "--fresh")
    )

    say("2. Calibrate: measure whole networks")
    command("ofa-compare", "--table", table, "--networks", "4", "--calibrate", "8", "--out", str(FOLDER / "calibrated"))

    smallest_ms, largest_ms = range_of(command("ofa-table", "show", table))
    limit_ms = round(smallest_ms + LIMIT_OF_RANGE * (largest_ms - smallest_ms), 2)
    say(f"3. Search: networks take {smallest_ms:.2f} to {largest_ms:.2f} ms; find the best one within {limit_ms} ms")
    searched = command(
        *("ofa-search", "--table", table, "--space", SPACE, "--max-latency-ms", str(limit_ms)), *("--out", found)
    )

    say("4. Compare: measure the network that was found")
    compared = command(
        *("ofa-compare", "--table", table, "--networks", found, "--calibrate", "0"),
        *("--out", str(FOLDER / "comparison")),
    )

    print()
    print(f"profiled   {profiled['entries']} entries, {profiled['failed']} failed, in {profiled['seconds']:.0f} s")
    print(f"found      {searched['predicted_latency_ms']:.2f} ms predicted of {limit_ms} ms allowed")
    error, noise = compared["calibrated"]["bias"], compared["noise"]["mape"]
    print(f"measured   the prediction is off by {error:+.1%}; two passes of the measurement differ by {noise:.1%}")
    print(f"report     {compared['report']}")


def command(*words: str) -> dict:
    """Run a command with visible progress; return its JSON."""
    print(f"   $ {' '.join(words)}", flush=True)
    done = subprocess.run([COMMANDS / words[0], *words[1:], "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def range_of(shown: dict) -> tuple[float, float]:
    space = next(space for space in shown["spaces"] if space["space"] == SPACE)
    return space["smallest_ms"], space["largest_ms"]


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
