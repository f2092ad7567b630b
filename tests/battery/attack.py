"""Read mutated files in a process with limits, and print the calls that failed.

python attack.py FOLDER SEED WORD…

READER=COUNT is a number of mutated files. NAME is a file of ``named.py``, which must be refused.

A call may succeed or raise an error of this project. Everything else is a failure: another exception, more than SLOW_S
seconds of the processor, more than MEMORY bytes, files of more than FILE bytes. The last line is JSON:
{"calls", "succeeded", "failures", "peak_mib"}; the last is the most memory that the process had.
"""

import contextlib
import io
import json
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path

import click

from ofa_tables.errors import OfaError

SLOW_S = 5.0
MEMORY = 2 << 30
FILE = 64 << 20
LIMITS = ("no space left", "too much memory", "takes too long")


def limit() -> None:
    """Limit memory and written files from here on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))


def failure_of(call, path: Path) -> tuple[bool, str]:
    """Return (succeeded, how it failed). An error of this project is neither, unless a limit caused it."""
    began = time.process_time()
    succeeded, failed = False, ""
    try:
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            call(path)
        succeeded = True
    except (OfaError, click.ClickException) as error:
        if any(reason in str(error) for reason in LIMITS):
            failed = f"it reached a limit: {str(error)[-100:]}"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in place if "/ofa_" in frame.filename]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        failed = f"{type(error).__name__} in {where}: {str(error)[:100]}"
    seconds = time.process_time() - began
    if seconds > SLOW_S:
        failed = f"{seconds:.0f} s {failed}"
    return succeeded, failed


def attack(name: str, reader, folder: Path, seed: int, count: int) -> tuple[int, list[dict[str, object]]]:
    """Return how many calls succeeded, and the failures."""
    seeds = reader.seeds(folder)
    succeeded, failures = 0, []
    for path in seeds:  # what is not mutated can be read
        reader.call(path)
    for number in range(count):
        random_ = random.Random(f"{name} {seed} {number}")
        whole = random_.choice(seeds)
        path = folder / f"{number}{whole.name}" if "lookup" not in whole.name else folder / "m" / whole.name
        path.parent.mkdir(exist_ok=True)
        reader.change(random_, whole.read_bytes(), path)
        print(name, number, file=sys.stderr, flush=True)
        done, failed = failure_of(reader.call, path)
        succeeded += done
        if failed:
            failures.append({"reader": name, "number": number, "failed": failed})
        for left_over in folder.glob(f"{path.stem}*"):
            if left_over.is_file() and left_over not in seeds:
                left_over.unlink()
    return succeeded, failures


def readers_and_attacks(with_torch: bool):
    import named
    import readers

    if with_torch:
        import named_checkpoints  # adds its own

        assert named_checkpoints
    return readers.READERS, named.ATTACKS


def attack_by_name(names: list[str], folder: Path, readers, attacks) -> list[dict[str, object]]:
    failures = []
    for name in names:
        reader, write = attacks[name]
        (folder / name).mkdir(parents=True)
        path = write(folder / name)
        print(name, file=sys.stderr, flush=True)
        done, failed = failure_of(readers[reader].call, path)
        if done or failed:
            failures.append({"reader": reader, "name": name, "failed": failed or "it was not refused"})
    return failures


def attack_with_mutations(counts: dict[str, int], folder: Path, seed: int, readers) -> tuple[int, list]:
    succeeded, failures = 0, []
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        done, failed = attack(name, readers[name], folder / name, seed, count)
        succeeded += done
        failures += failed
    return succeeded, failures


def main() -> None:
    folder, seed, words = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    names = [word.partition("=")[0] for word in words]
    readers, attacks = readers_and_attacks(with_torch=False)
    if set(names) - set(readers) - set(attacks):
        readers, attacks = readers_and_attacks(with_torch=True)
    limit()
    counts = {name: int(count) for name, equals, count in (word.partition("=") for word in words) if equals}
    failures = attack_by_name([word for word in words if "=" not in word], folder, readers, attacks)
    succeeded, more = attack_with_mutations(counts, folder, int(seed), readers)
    calls = len(words) - len(counts) + sum(counts.values())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    result = {"calls": calls, "succeeded": succeeded, "failures": failures + more, "peak_mib": peak_mib}
    print(json.dumps(result), flush=True)
    os._exit(0)  # without the warnings of tables that were left open


if __name__ == "__main__":
    main()
