"""Run the agent's tests with agents on every Python of this machine; the host runs on the Python of this script.

    .venv/bin/python scripts/matrix.py [3.6 3.8 …]

Each gets a virtual environment under build/, with the newest packages that exist for it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ofa_agent.device.probe import NEEDED
from ofa_profiler.connections.deploy import PINS

REPOSITORY = Path(__file__).parents[1]
# What the newest pip that still runs there takes for granted, or the runtime's wheel forgets to ask for.
MORE = {
    "3.6": ("typing-extensions==4.1.1", "six", "flatbuffers<3", "importlib-metadata==4.8.3"),
    "3.7": ("importlib-metadata==6.7.0",),
}


def main() -> None:
    found = interpreters()
    failed = []
    for version in sys.argv[1:] or sorted(found, key=lambda version: int(version.partition(".")[2])):
        python = environment(version, found[version])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/agents", "--deselect", "tests/agents/test_pythons.py"],
            cwd=REPOSITORY,
            env={**os.environ, "AGENT_PYTHON": str(python), "PYTHONPATH": str(REPOSITORY / "agents")},
            capture_output=True,
            text=True,
        )
        reported = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        print(f"Python {version}: {done.stdout.strip().splitlines()[-1]}", *reported, sep="\n  ", flush=True)
        failed += [version] if done.returncode else []
    sys.exit(f"failed on {', '.join(failed)}" if failed else 0)


def interpreters() -> dict[str, str]:
    """On the PATH, and those of pyenv."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(6, 15)]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python")))
    found: dict[str, str] = {}
    for path in filter(None, candidates):
        asked = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if asked.returncode == 0:
            found.setdefault(asked.stdout.strip(), path)
    return found


def environment(version: str, interpreter: str) -> Path:
    folder = REPOSITORY / "build" / f"agent-{version}"
    python = folder / "bin" / "python"
    made = folder / "made"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        pins = PINS.get(version, {})
        names = [f"{name}=={pins[name]}" if name in pins else name for name in (*NEEDED, "onnxruntime")]
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
        subprocess.run([*install[:-2], "pip==21.3.1" if version == "3.6" else "pip"], check=True)
        subprocess.run([*install, *names, *MORE.get(version, ())], check=True)
        made.touch()
    return python


if __name__ == "__main__":
    main()
