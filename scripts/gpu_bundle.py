"""Download what ``make bench-gpu`` needs beside PyTorch, ONNX Runtime, onnx and grpcio, for a machine without internet.

make bench-gpu-bundle               # into build/gpu-wheels, as wheels for Python 3.12 on x86-64 Linux
"""

import subprocess
import sys
from pathlib import Path

WHEELS = Path(__file__).parents[1] / "build" / "gpu-wheels"
REQUIREMENTS = ("click", "platformdirs", "rich", "pyyaml", "nvidia-ml-py", "pytest", "pytest-timeout")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> None:
    WHEELS.mkdir(parents=True, exist_ok=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version=3.12"]
    subprocess.run([*command, *platforms, "--dest", str(WHEELS), *REQUIREMENTS], check=True)
    wheels = sorted(WHEELS.glob("*.whl"))
    print(f"{len(wheels)} wheels in {WHEELS}: {sum(wheel.stat().st_size for wheel in wheels) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
