"""How long it takes to lower every Block of a space to each model format.

python scripts/lowering.py [--space ofa-mbv3-w1.0]
"""

import argparse
import time
from importlib.util import find_spec

from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower

FORMATS = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("tflite", "fp32"), ("tflite", "fp16"), ("tflite", "int8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ofa-mbv3-w1.0")
    space = find_space(parser.parse_args().space)
    blocks = {block.key: block for px in space.resolutions_px for block in space.blocks(px)}.values()
    for runtime, precision in FORMATS:
        if runtime == "tflite" and find_spec("ai_edge_litert") is None:
            print(f"{runtime:<12} {precision}  takes pip install 'ofa-profile[tflite]'")
            continue
        started = time.perf_counter()
        for block in blocks:
            lower(runtime, block, 1, precision)
        seconds = time.perf_counter() - started
        print(f"{runtime:<12} {precision}  {len(blocks):,} blocks in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
