"""NVIDIA software on a Jetson: versions of Debian packages, and whether the clocks are locked (``jetson_clocks``)."""

import re
from typing import Dict

from ofa_agent.conditions.jetson import is_jetson, unlocked
from ofa_agent.device.shell import Shell

# Package patterns for dpkg-query.
PACKAGES = {
    "L4T": "nvidia-l4t-core",
    "JetPack": "nvidia-jetpack",
    "CUDA": "cuda-cudart-[0-9]*",
    "cuDNN": "libcudnn[0-9]",
    "TensorRT": "libnvinfer[0-9]*",
}
# Written when the board is flashed; present even if the packages were not installed with dpkg.
RELEASE = "/etc/nv_tegra_release"


def software(shell: Shell) -> Dict[str, str]:
    """Return the versions by name; empty on other devices."""
    if not is_jetson(shell):
        return {}
    found = {}
    for name, package in PACKAGES.items():
        reported = shell.run("dpkg-query", "-W", "-f", "${Version}\n", package).output
        release = re.match(r"\d+(\.\d+)*", reported)
        if release:
            found[name] = release.group(0)
    flashed = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", shell.read(RELEASE) or "")
    if flashed:
        found.setdefault("L4T", "%s.%s" % flashed.groups())
    free = unlocked(shell)
    if free is not None:
        found["jetson_clocks"] = "off" if free else "on"
    return found
