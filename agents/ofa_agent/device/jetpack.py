"""NVIDIA's software on a Jetson: releases by Debian package, and the state of ``jetson_clocks``."""

import re
from typing import Dict

from ofa_agent.conditions.jetson import is_jetson
from ofa_agent.device.shell import Shell

# Each as dpkg-query's patterns know it.
PACKAGES = {
    "L4T": "nvidia-l4t-core",
    "JetPack": "nvidia-jetpack",
    "CUDA": "cuda-cudart-[0-9]*",
    "cuDNN": "libcudnn[0-9]",
    "TensorRT": "libnvinfer[0-9]*",
}
POLICIES = "/sys/devices/system/cpu/cpufreq/policy*/scaling_%s_freq"


def software(shell: Shell) -> Dict[str, str]:
    """By name; nothing on other devices."""
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
        found["jetson_clocks"] = "on" if lowest == highest else "off"  # it raises the lower limit to the upper
    return found
