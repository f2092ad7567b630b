"""Install the agent's requirements on a board without internet access: download wheels here, copy them."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ofa_agent.commands.template import PREFIX
from ofa_agent.device.probe import NEEDED
from ofa_profiler.connections.deploy import Deployment, Python
from ofa_tables.errors import DeviceError

DOWNLOAD_S = 1800.0
INSTALL_S = 1800.0
# A board may have no pip, so pip's wheel is copied and run there.
PIPS = {"3.6": "21.3.1", "3.7": "24.0", "3.8": "25.0.1"}
# The minimum glibc, 2.x, of a wheel with each of these names (PEP 600).
LEGACY = ((17, "manylinux2014"), (12, "manylinux2010"), (5, "manylinux1"))

# pip installs into a directory that only the agent uses: the packages of the board do not change.
INSTALL = """
IFS= read -r python; IFS= read -r wheels; IFS= read -r packages
set -- "$wheels"/pip-*.whl
"$python" "$1/pip" install --quiet --no-index --find-links "$wheels" --upgrade --target "$packages" \
--disable-pip-version-check --no-warn-script-location --requirement "$wheels/requirements.txt"
code=$?
rm -rf "$wheels"
exit $code
"""


def provision(deployment: Deployment, runtimes: Sequence[str], named: str, say: Callable[[str], None]) -> Python:
    """The Python of the board (``named``, if given) that now has what the agent and the first of ``runtimes`` need.
    Raises DeviceError.
    """
    name = deployment.name
    candidates = deployment.pythons(named)
    ready = next((python for python in candidates if not python.lacks(runtimes[:1])), None)
    if ready is not None:
        say(f"Python {ready.version} of {name} has everything already")
        return ready
    reasons = []
    for python in candidates:
        with tempfile.TemporaryDirectory() as folder:
            packages = [name for name in runtimes[:1] if not name.startswith(PREFIX)]  # a command needs none
            wanted = python.requirements([*NEEDED, *packages])
            failure = _download(python, wanted, Path(folder))
            if failure:
                reasons.append(f"Python {python.version}: {failure}")
                continue
            wheels = sorted(Path(folder).iterdir())
            megabytes = sum(wheel.stat().st_size for wheel in wheels) / 1e6
            say(f"copying {len(wheels)} wheels ({megabytes:.0f} MB) for Python {python.version} to {name}")
            there = f"{deployment.folder}/wheels"
            for wheel in wheels:
                deployment.put(there, wheel.name, wheel.read_bytes())
            deployment.put(there, "requirements.txt", "\n".join(wanted).encode())
        deployment.require(INSTALL, python.executable, there, deployment.packages, timeout_s=INSTALL_S)
        return deployment.choose(runtimes[:1], python.executable)
    raise DeviceError(f"{name}: no wheels are available: {'; '.join(reasons)}")


def platform_tags(machine: str, libc: str) -> list[str]:
    """The platform tags of pip for wheels that run there, the newest first (PEP 600). Raises DeviceError for a libc
    without wheels.
    """
    found = re.match(r"glibc-2\.(\d+)", libc)
    if not found:
        raise DeviceError(f"wheels exist for glibc, and this board has {libc or 'another C library'}")
    minor = int(found.group(1))
    tags = [f"manylinux_2_{number}_{machine}" for number in range(minor, 4, -1)]
    tags += [f"{legacy}_{machine}" for at_least, legacy in LEGACY if minor >= at_least]
    return [*tags, f"linux_{machine}"]


def _download(python: Python, requirements: Sequence[str], folder: Path) -> str:
    """Download wheels to ``folder``; return the reason for a failure in one line, or an empty string."""
    pip = PIPS.get(python.series)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--only-binary", ":all:", "--dest", str(folder), "--implementation", "cp"),
            *("--python-version", python.series, "--abi", python.tag, "--abi", "abi3", "--abi", "none"),
            *(["--abi", f"{python.tag}m"] if python.number < (3, 8) else []),
            *(word for tag in platform_tags(python.machine, python.libc) for word in ("--platform", tag)),
            *(f"pip=={pip}" if pip else "pip", *requirements),
        ],
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_S,
    )
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or ["pip failed"]
    return lines[-1].removeprefix("ERROR: ")
