"""Compare the latency of model files through the agent with a bare loop of ONNX Runtime, interleaved.

    .venv/bin/python scripts/bare_loop.py mine.onnx other.onnx --rounds 20

The bare loop is what onnxruntime's own perf_test does: a process with one session, the inputs made once, and the clock
around each run, which allocates its outputs. Both run with the same number of threads and the same warm-up, in turns.
Prints the ratio of agent to bare loop of each file: the median over rounds, and the quartiles.
"""

import argparse
import gc
import multiprocessing
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ofa_agent.inputs import random_values
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_profiler.connections import connect
from ofa_profiler.connections.client import Lease
from ofa_profiler.models.formats import read_model
from ofa_profiler.models.model_file import ModelFile
from ofa_profiler.models.shapes import parse_shapes
from ofa_profiler.targets.target import find_target

BUDGET = Budget(warmup_s=0.5, window_s=0.0, burst_min_s=0.2, burst_max_s=0.2)
RUNTIME = "onnxruntime"


def main() -> None:
    options = _options()
    files = [read_model(path, parse_shapes(options.shape)) for path in options.files]
    for name, ratios in compare(files, options.rounds, options.threads):
        print(f"{name}: agent / bare loop {in_words(ratios)}", flush=True)


def in_words(ratios: Sequence[float]) -> str:
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return f"{middle:.4f} (quartiles {low:.4f}, {high:.4f}; {len(ratios)} rounds)"


def compare(files: Sequence[ModelFile], rounds: int, threads: int = 1) -> Iterator[tuple[str, list[float]]]:
    """Yield the name of each file and the ratio of agent to bare loop in each round."""
    ratios: dict[str, list[float]] = defaultdict(list)
    with (
        connect(find_target("local")) as connection,
        connection.agent.lease(uuid.uuid4().hex, "bare loop") as lease,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        for number in range(rounds):
            for file in files:
                # Alternate which one runs first.
                measured = {
                    by_agent: _through_agent(lease, file, threads)
                    if by_agent
                    else pool.submit(_bare_ns, file.content, file.inputs, threads).result()
                    for by_agent in ((True, False) if number % 2 else (False, True))
                }
                ratios[file.name].append(measured[True] / measured[False])
    yield from ratios.items()


def _through_agent(lease: Lease, file: ModelFile, threads: int) -> float:
    settings = wire.Settings(runtime=RUNTIME, precision="fp32", threads=threads, batch=1)
    job = wire.file_job_message(file.key, file.format, file.inputs, False, settings, file.model.model_id)
    trial = wire.Trial(trial_id=uuid.uuid4().hex, job=job)
    wire.set_budget(trial.budget, BUDGET, 600.0)
    trials = iter([trial])
    (message,) = lease.measure(lambda: next(trials, None), {file.model.model_id: file.model})
    lease.acknowledge([message.trial_id])
    assert message.status == "ok", message.error
    return float(np.median(message.samples_ns))


def _bare_ns(content: bytes, inputs: Sequence[Any], threads: int) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = {
        each.name: ort.OrtValue.ortvalue_from_numpy(random_values(each, number)) for number, each in enumerate(inputs)
    }
    samples: list[int] = []
    gc.disable()
    warm_until = time.perf_counter_ns() + BUDGET.warmup_s * 1e9
    while time.perf_counter_ns() < warm_until:
        session.run_with_ort_values(names, values)
    until = time.perf_counter_ns() + BUDGET.burst_min_s * 1e9
    while time.perf_counter_ns() < until or len(samples) < BUDGET.min_runs:
        start = time.perf_counter_ns()
        session.run_with_ort_values(names, values)
        samples.append(time.perf_counter_ns() - start)
    gc.enable()
    return float(np.median(samples))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="ONNX files.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", action="append", default=[], help="As for ofa-profile.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
