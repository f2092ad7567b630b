"""Measure on a machine with an NVIDIA GPU: are the CUDA runtimes right, and how well do tables predict networks there?

    make bench-gpu                      # at most 8 minutes; writes docs/measurements/gpu-NAME.json; again: continues
    make bench-gpu-bundle               # before, where there is internet: build/gpu-wheels for a machine without it

Every part runs in a separate process. The file is written after each part. If a part fails or hangs, its error is
recorded, and the next part runs. Parts for which no time was left are listed under "left".
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "grpcio", "protobuf", "nvidia-ml-py")
SPACE, RESOLUTION_PX = "ofa-mbv3-w1.0", 160
ROUNDS = 6  # three trials for each of the two passes
LEAST_S = 20.0  # a part with less time is not begun
SMI = ("name", "driver_version", "vbios_version", "memory.total", "clocks.max.sm", "power.limit", "compute_mode")
RUNTIMES = ("torch-cuda", "torch-cuda-graph", "onnxruntime-cuda")


@dataclass(frozen=True)
class Configuration:
    """A table and the comparison of its predictions."""

    runtime: str
    batch: int
    precision: str
    blocks: str = ""

    @property
    def name(self) -> str:
        return "-".join(filter(None, [f"{self.runtime}-b{self.batch}-{self.precision}", self.blocks]))


def main() -> None:
    options = parsed()
    if options.part:
        print(json.dumps(parts(options)[options.part]()))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.seconds
    results = json.loads(options.out.read_text()) if options.out.exists() else {"parts": {}}
    wanted = [name for name in parts(options) if "result" not in results["parts"].get(name, {})]
    for index, name in enumerate(wanted):
        left_s = deadline - time.monotonic()
        results["left"] = wanted[index:] if left_s < LEAST_S else wanted[index + 1 :]
        if left_s >= LEAST_S:
            print(f"{name}, {left_s:.0f} s left", flush=True)
            results["parts"][name] = run_part(name, left_s)
            print(json.dumps(results["parts"][name])[:600], flush=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        if left_s < LEAST_S:
            break


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "measurements" / f"gpu-{gpu_name()}.json")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "gpu", help="where tables are kept")
    parser.add_argument("--seconds", type=float, default=470.0, help="for everything")
    parser.add_argument("--networks", type=int, default=60, help="to test, of each configuration")
    parser.add_argument("--calibrate", type=int, default=20, help="other networks, to calibrate")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--batches", default="1,64")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--part", help="only this part, printed as JSON")
    return parser.parse_args()


def gpu_name() -> str:
    described = nvidia_smi("name")
    return re.sub(r"\W+", "-", described[0].lower()).strip("-") if described else "none"


def run_part(name: str, timeout_s: float) -> dict[str, Any]:
    """Run a part in a separate process and return its result, or its error."""
    started = time.monotonic()
    command = [sys.executable, __file__, *sys.argv[1:], "--part", name]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        said = late.stderr.decode(errors="replace") if isinstance(late.stderr, bytes) else late.stderr or ""
        return {"error": f"not finished after {timeout_s:.0f} s", "stderr": said[-1500:]}
    seconds = round(time.monotonic() - started, 1)
    if ran.returncode:
        return {"error": f"exit code {ran.returncode}", "stderr": ran.stderr[-3000:], "seconds": seconds}
    return {"result": json.loads(ran.stdout.splitlines()[-1]), "seconds": seconds}


def parts(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """The parts by name, the most important configurations first."""
    runtimes, batches, precisions = (
        value.split(",") for value in (options.runtimes, options.batches, options.precisions)
    )
    found: dict[str, Callable[[], Any]] = {"machine": machine, "tests": tests}
    in_place = [runtime for runtime in runtimes if runtime.startswith("torch")]
    found |= {f"agreement-{runtime}": lambda runtime=runtime: agreement(runtime) for runtime in in_place}
    pairs = [(batch, precision) for batch in batches for precision in precisions]
    pairs.sort(key=lambda pair: pair in ((batches[0], precisions[-1]), (batches[-1], precisions[0])))
    for number, (batch, precision) in enumerate(pairs):
        for runtime in runtimes:
            one = Configuration(runtime, int(batch), precision)
            found[one.name] = lambda one=one: predicted_and_measured(one, options)
        if number == 0:
            alone = Configuration(runtimes[0], int(batch), precision, "alone")
            found[alone.name] = lambda alone=alone: isolated(alone, options)
    return found


# Parts.


def machine() -> dict[str, Any]:
    """Versions, the GPU, and what the agent finds."""
    from ofa_agent import runtimes

    probed = runtimes.probe()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "gpu": dict(zip(SMI, nvidia_smi(*SMI), strict=False)),
        "runtimes": dict(probed.runtimes),
        "missing": dict(probed.missing_runtimes),
        "in place": list(probed.profiling_runtimes),
    }


def tests() -> dict[str, Any]:
    """The tests that need a GPU."""
    files = [str(REPOSITORY / "tests" / "agents" / name) for name in ("test_torch_cuda.py", "test_onnxruntime_gpu.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *files]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    lines = ran.stdout.splitlines()
    return {"exit code": ran.returncode, "last lines": lines[-25:] or ran.stderr.splitlines()[-5:]}


def agreement(runtime: str) -> dict[str, Any]:
    """Whether device time by events agrees with the profiler's kernels, and parts add up to their network."""
    import numpy as np

    from ofa_agent import runtimes
    from ofa_agent.measuring.timing import clock_ns, median
    from ofa_agent.protocol import messages as wire
    from ofa_nas.spaces import find_space

    space = find_space(SPACE)
    found = []
    for batch, network in enumerate(space.decode(space.sample_spread(6, np.random.default_rng(0), [RESOLUTION_PX]))):
        settings = wire.Settings(runtime=runtime, precision="fp32", threads=1, batch=(1, 16, 64)[batch % 3])
        block = space.network(network)
        job = wire.job_message(block, settings, "")
        loaded = runtimes.find(runtime).load_profiled(block, job, "")
        for _ in range(15):
            loaded.run()
        reported = loaded.operator_times().after(5)
        wall_ns = []
        for _ in range(21):
            before = clock_ns()
            loaded.run()
            wall_ns.append(clock_ns() - before)
        one = {"batch": settings.batch, "wall_ms": median(wall_ns) / 1e6}
        one["parts_over_wall"] = float(np.median(reported.operator_ns.sum(axis=1))) / median(wall_ns)
        if reported.launches is not None:
            times = loaded.device_times()
            kernels_ns = float(np.median(reported.launches.device_ns.sum(axis=1)))
            one |= {"events_ms": times.device_ns / 1e6, "launches_ms": times.launch_ns / 1e6}
            one |= {"kernels_ms": kernels_ns / 1e6, "events_over_kernels": times.device_ns / kernels_ns}
            one["gaps_ms"] = float(np.median(reported.launches.gap_ns.sum(axis=1))) / 1e6
        found.append(one)
        loaded.close()
    return {"networks": found}


def predicted_and_measured(one: Configuration, options: argparse.Namespace) -> dict[str, Any]:
    """A table, and the comparison of its predictions with measured networks."""
    from ofa_profiler import library
    from ofa_profiler.comparison import compare

    compare.ROUNDS = compare.MOST_ROUNDS = ROUNDS
    made = profiled(one, options)
    profiled_at = time.monotonic()
    comparison = library.compare(made.path, options.networks, calibrate=options.calibrate)
    summary = comparison.summary()
    return {
        "entries": {name: made.summary[name] for name in ("entries", "measured", "failed", "flagged")},
        "comparison": {name: value for name, value in summary.items() if not isinstance(value, list)},
        "kind": None if comparison.calibration is None else comparison.calibration.kind,
        "kinds": of_each_kind(made.path, comparison),
        "compared_s": round(time.monotonic() - profiled_at, 1),
    }


def of_each_kind(path: Path, comparison: Any) -> dict[str, Any]:
    """The errors of each kind of model, with a line fitted to the same calibration networks."""
    from dataclasses import asdict, replace

    from ofa_nas.spaces import find_space, parse_architecture
    from ofa_profiler.comparison.statistics import errors, passes_of
    from ofa_tables.model.calibration import LAUNCH_BOUND, SUM, Calibration
    from ofa_tables.model.latency_model import LatencyModel
    from ofa_tables.table import LatencyTable

    space, found = find_space(comparison.space), {}
    tested, calibrating = (
        space.encode([parse_architecture(network.architecture) for network in networks])
        for networks in (comparison.networks, comparison.calibration_networks)
    )
    measured_ms = [network.measured_ms for network in comparison.calibration_networks]
    with LatencyTable.read(path) as table:
        for kind in (SUM, LAUNCH_BOUND):
            model = LatencyModel(table, space, Calibration(1.0, 1, kind=kind))
            if model.kind == kind:
                line = replace(Calibration.fit(model.summed(calibrating), measured_ms), kind=kind)
                found[kind] = asdict(errors(line(model.summed(tested)), passes_of(comparison.networks)))
    return found


def isolated(one: Configuration, options: argparse.Namespace) -> dict[str, Any]:
    """The sum of blocks that were timed alone, on the networks of the comparison of the same configuration."""
    from dataclasses import asdict, replace

    from ofa_nas.spaces import find_space, parse_architecture
    from ofa_profiler import library
    from ofa_profiler.comparison.statistics import errors, passes_of
    from ofa_tables.model.latency_model import LatencyModel

    made = profiled(one, options)
    measured = profiled(replace(one, blocks=""), options).path  # its networks are measured already
    networks = library.compare(measured, options.networks, calibrate=options.calibrate).networks
    space = find_space(SPACE)
    with library.open_table(made.path) as table:
        summed = LatencyModel(table, space).raw(
            space.encode([parse_architecture(one.architecture) for one in networks])
        )
    return {"networks": len(networks), "raw": asdict(errors(summed, passes_of(networks)))}


def profiled(one: Configuration, options: argparse.Namespace) -> Any:
    """The table of a configuration, measured or continued."""
    from ofa_profiler import library

    options.work.mkdir(parents=True, exist_ok=True)
    return library.profile(
        "local",
        SPACE,
        resolutions=[RESOLUTION_PX],
        runtime=one.runtime,
        batch=one.batch,
        precision=one.precision,
        effort="quick",
        blocks=one.blocks or None,
        out=options.work / f"{one.name}.lut",
    )


def installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def nvidia_smi(*fields: str) -> list[str]:
    """Fields of the first GPU; empty without one."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [word.strip() for word in ran.stdout.split("\n")[0].split(",")] if ran.returncode == 0 else []


if __name__ == "__main__":
    main()
