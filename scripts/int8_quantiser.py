"""Compare our int8 models with those of onnxruntime's quantiser: kernels, and latency measured in alternation.

python scripts/int8_quantiser.py [--space ofa-mbv3-w1.0] [--resolution 160] [--networks 3] [--rounds 40]
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from ofa_agent import operators as ops
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower, onnx_int8

RUNS = 5  # of each model in a round


class Inputs(CalibrationDataReader):  # type: ignore[misc]
    """The inputs that the lowering calibrates with."""

    def __init__(self, block: Block) -> None:
        self._images = iter(onnx_int8.random_input((onnx_int8.INPUTS, *block.input_shape)))

    def get_next(self) -> dict[str, onnx_int8.Array] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image[None]}


def models(block: Block, folder: Path) -> dict[str, bytes]:
    fp32, int8 = (wire.model_bytes(lower("onnxruntime", block, 1, name).chunks) for name in ("fp32", "int8"))
    theirs = folder / "theirs.onnx"
    quantize_static(
        onnx.load_from_string(fp32), theirs, Inputs(block), per_channel=True, activation_type=QuantType.QUInt8
    )
    return {"fp32": fp32, "ours": int8, "quantiser": theirs.read_bytes()}


def session_of(content: bytes, optimised: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ofa-mbv3-w1.0")
    parser.add_argument("--resolution", type=int, default=160)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    space = find_space(chosen.space)
    networks = space.decode(space.sample(chosen.networks, np.random.default_rng(0), [chosen.resolution]))
    for architecture in networks:
        block = space.network(architecture)
        values = {"x": ops.seeded(1, ops.product(block.input_shape), 1.0).reshape(1, *block.input_shape)}
        kernels, sessions = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in models(block, Path(folder)).items():
                optimised = Path(folder) / "optimised.onnx"
                sessions[name] = session_of(content, optimised)
                kernels[name] = Counter(node.op_type for node in onnx.load(optimised).graph.node)
        taken = {name: np.zeros((chosen.rounds, RUNS)) for name in sessions}
        for number in range(chosen.rounds):
            for name, session in sessions.items():
                for run in range(RUNS):
                    started = time.perf_counter()
                    session.run(None, values)
                    taken[name][number, run] = time.perf_counter() - started
        rounds = {name: np.median(seconds, axis=1) * 1e3 for name, seconds in taken.items()}
        latencies = ", ".join(f"{name} {np.median(latency):.2f} ms" for name, latency in rounds.items())
        ratio = np.median(rounds["ours"] / rounds["quantiser"])
        same = "the same kernels" if kernels["ours"] == kernels["quantiser"] else "different kernels"
        print(f"{latencies}; ours / quantiser {ratio:.3f}, {same}", flush=True)
        print(f"  {dict(kernels['ours'])}")


if __name__ == "__main__":
    main()
