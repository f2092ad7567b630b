"""TFLite files of Blocks' PyTorch layers, by the converter litert-torch, which lives in an environment of its own.

PYTHON converting.py BLOCKS OUT      BLOCKS is a pickled list; OUT gets 0.tflite, 1.tflite, …
"""

import pickle
import sys
from pathlib import Path

import litert_torch
import torch

from ofa_agent.runtimes.torch_layers import TorchBlock


def main():
    blocks, out = Path(sys.argv[1]), Path(sys.argv[2])
    for number, block in enumerate(pickle.loads(blocks.read_bytes())):
        channels, height, width = block.input_shape
        outputs = [0] if len(block.output_shape) == 3 else []
        module = litert_torch.to_channel_last_io(TorchBlock(block, block.seed).eval(), args=[0], outputs=outputs)
        converted = litert_torch.convert(module, (torch.zeros(1, height, width, channels),))
        converted.export(str(out / f"{number}.tflite"))


if __name__ == "__main__":
    main()
