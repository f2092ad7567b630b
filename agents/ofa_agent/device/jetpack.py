"""NVIDIA software on a Jetson: versions of Debian packages, and the state of ``jetson_clocks``."""

import re
from typing import Dict

from ofa_agent.conditions.jetson import is_jetson
from ofa_agent.device.shell import Shell

# Package patterns for dpkg-query.
PACKAGES = {
    "L4T": "nvidia-l4t-core",
    "JetPack": "nvidia-jetpack",
    "CUDA": "cuda-cudart-[0-9]*",
    "cuDNN": "libcudnn[0-9]",
    "TensorRT": "libnvinfer[0-9]*",
}
POLICIES = "/sys/devices/system/cpu/cpufreq/policy*/scaling_%s_freq"


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
    lowest, highest = ([shell.read(path) for path in shell.list(POLICIES % end)] for end in ("min", "max"))
    if lowest:
        found["jetson_clocks"] = "on" if lowest == highest else "off"  # it raises the lower limit to the upper limit
    return found
