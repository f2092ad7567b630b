"""Measure what the agent adds to the latency of a block, relative to a bare loop in one process, interleaved.

    .venv/bin/python scripts/agent_path.py

Prints the ratio of agent to bare loop (median over 20 blocks of medians over rounds), and the share of processor time
that the agent itself uses while its worker measures.
"""

import argparse
import gc
import random
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ofa_agent.measuring.timing import Budget
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import find_space
from ofa_profiler.connections import connect
from ofa_profiler.connections.client import Lease
from ofa_profiler.lowering import Model, lower
from ofa_profiler.targets.target import find_target

BUDGET = Budget(warmup_s=0.2, window_s=0.005, burst_min_s=0.05, burst_max_s=0.05)
RUNTIME = "onnxruntime"


def main() -> None:
    options = _options()
    space = find_space("ofa-mbv3-w1.0")
    blocks = random.Random(0).sample(space.blocks(160), options.blocks)
    models = {block.key: lower(RUNTIME, block, 1) for block in blocks}
    ratios: dict[str, list[float]] = defaultdict(list)
    own_ns = timed_ns = 0
    with tempfile.TemporaryDirectory() as folder, connect(find_target("local")) as connection:
        files = dict(_files(models, Path(folder)))
        with connection.agent.lease(uuid.uuid4().hex, "agent path") as lease:
            for number in range(options.rounds):
                for block in random.Random(number).sample(blocks, len(blocks)):
                    # Alternate which one runs first.
                    for by_agent in (True, False) if number % 2 else (False, True):
                        if by_agent:
                            message = _through_agent(lease, block, models[block.key])
                            through_ns = np.median(message.samples_ns)
                            own_ns, timed_ns = own_ns + message.agent_cpu_ns, timed_ns + message.timed_ns
                        else:
                            bare_ns = _bare_ns(files[block.key], block)
                    ratios[block.key].append(through_ns / bare_ns)
                medians = [float(np.median(of_block)) for of_block in ratios.values()]
                low, high = np.quantile(medians, (0.25, 0.75))
                over = f"{np.median(medians):.4f} (blocks' quartiles {low:.4f}, {high:.4f})"
                print(f"{number + 1} rounds: agent / bare {over}", flush=True)
    print(f"the agent's own processor time while its worker measures: {own_ns / timed_ns:.3%}")


def _through_agent(lease: Lease, block: Block, model: Model) -> wire.Message:
    settings = wire.Settings(runtime=RUNTIME, precision="fp32", threads=1, batch=1)
    trial = wire.Trial(trial_id=uuid.uuid4().hex, job=wire.job_message(block, settings, model.model_id))
    wire.set_budget(trial.budget, BUDGET, 60.0)
    trials = iter([trial])
    (message,) = lease.measure(lambda: next(trials, None), {model.model_id: model})
    lease.acknowledge([message.trial_id])
    assert message.status == "ok", message.error
    return message


def _bare_ns(path: Path, block: Block) -> float:
    """A plain benchmark: load, warm up, then a loop with a clock."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    values = np.random.default_rng(0).standard_normal((1, *block.input_shape)).astype(np.float32)
    binding = session.io_binding()
    binding.bind_input(session.get_inputs()[0].name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
    output = ort.OrtValue.ortvalue_from_numpy(np.empty((1, *block.output_shape), np.float32))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
    samples = []
    gc.disable()
    warm_until = time.perf_counter_ns() + 20e6
    while time.perf_counter_ns() < warm_until:
        session.run_with_iobinding(binding)
    until = time.perf_counter_ns() + BUDGET.burst_min_s * 1e9
    while time.perf_counter_ns() < until:
        start = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        samples.append(time.perf_counter_ns() - start)
    gc.enable()
    return float(np.median(samples))


def _files(models: dict[str, Model], folder: Path) -> Iterator[tuple[str, Path]]:
    for index, (key, model) in enumerate(models.items()):
        path = folder / f"{index}.onnx"
        path.write_bytes(wire.model_bytes(model.chunks))
        yield key, path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    main()
