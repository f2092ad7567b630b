"""Check which requirements of the agent this Python meets, without importing them."""

import os
import platform
import sys
from importlib import util
from typing import Any, Dict

# Distributions and the names under which they are imported.
NEEDED = {"grpcio": "grpc", "protobuf": "google.protobuf", "numpy": "numpy"}
OF_RUNTIMES = {
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch",),
    "openvino": ("openvino",),
    "tflite": ("ai_edge_litert", "tflite_runtime"),  # either
}


def probe() -> Dict[str, Any]:
    """Return the results as plain data. Nothing is imported, because a runtime takes seconds to import."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "tag": "cp%d%d" % sys.version_info[:2],
        "machine": platform.machine(),
        "libc": "-".join(platform.libc_ver()),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "here": [name for name, module in NEEDED.items() if _is_there(module)],
        "missing": [name for name, module in NEEDED.items() if not _is_there(module)],
        "runtimes": [name for name, modules in OF_RUNTIMES.items() if any(map(_is_there, modules))],
        "prefix": os.path.realpath(sys.prefix),
    }


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False
