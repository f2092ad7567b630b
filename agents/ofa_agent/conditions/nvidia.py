"""NVIDIA GPUs in PCs and servers, through ``nvidia-ml-py``, or through ``nvidia-smi`` where it is not installed.

``nvidia-smi --help-query-gpu`` lists the fields.

``nvidia-smi`` also exists on a Jetson with JetPack 6, where it reports ``[N/A]`` for most fields. A field that is not a
number is unknown. On a Jetson the files of the kernel take precedence, because they also cover the rest of the module.
"""

import re
from typing import Any, List, Optional, Tuple

from ofa_agent.conditions.jetson import is_jetson
from ofa_agent.conditions.knob import CannotSet, Knob, in_time, number, require
from ofa_agent.conditions.nvml import gpu_id, nvml
from ofa_agent.conditions.thermal import note_temperature
from ofa_agent.device.shell import LocalShell, Shell

FIELDS = "clocks.sm,clocks.max.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
FORMAT = "--format=csv,noheader,nounits"
# Newer drivers call the last field by another name, and refuse a query with a name that they do not know.
QUERIES = ("--query-gpu=" + FIELDS, "--query-gpu=" + FIELDS.replace("clocks_throttle_reasons", "clocks_event_reasons"))
IDLE = 0x1  # an idle GPU lowers its clock
AS_SET = 0x2  # clocks that a user set
SYNC = 0x10
POWER_OF = "GPU"
# The driver rounds a clock down to its next step.
STEP_MHZ = 15
LOCKED = re.compile(r"gpuClkMin\s+(\d+)\D+gpuClkMax\s+(\d+)")


class NvidiaClocks(Knob):
    """``gpu-clock=MHz`` locks the clock of the first GPU of CUDA.

    The GPU does not report an earlier lock, so the clock is always unlocked afterwards.
    """

    settings = ("gpu-clock",)
    cheap = False
    of_gpu = True

    def read(self, shell: Shell, condition: Any) -> None:
        fields = _fields(shell)
        if not fields:
            return
        clock_mhz, _, temperature_c, power_w = (number(word, -60, 1e5) for word in fields[:4])
        on_jetson = is_jetson(shell)
        if clock_mhz and clock_mhz > 0 and not (on_jetson and condition.gpu_clock_mhz):
            condition.gpu_clock_mhz = int(clock_mhz)
        if temperature_c is not None and temperature_c <= 200:
            note_temperature(condition, "gpu", temperature_c)
        if power_w and power_w > 0 and not on_jetson:
            condition.power_w, condition.power_of = power_w, POWER_OF
        condition.throttled = condition.throttled or bool(_reasons(fields) & ~(IDLE | AS_SET | SYNC))

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        fields = _fields(shell)
        return "unlocked" if fields and number(fields[1], 1, 1e5) else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if not value.isdigit():
            raise CannotSet("gpu-clock=%s is not valid; use a number of MHz" % value)
        said = require(shell.run(*_nvidia_smi(), "-lgc", "%s,%s" % (value, value)), "nvidia-smi -lgc")
        # A driver that refuses prints a warning, and nvidia-smi succeeds nevertheless.
        if "not supported" in said.lower() or "treating as warning" in said.lower():
            raise CannotSet("nvidia-smi -lgc: %s" % said.splitlines()[0])
        locked = LOCKED.search(said)
        if locked and {int(end) for end in locked.groups()} != {int(value)}:
            raise CannotSet("nvidia-smi -lgc locked %s to %s MHz instead" % locked.groups())

    def check(self, shell: Shell, setting: str, value: str) -> None:
        in_time(shell, lambda: _difference(_fields(shell), int(value)))

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.run(*_nvidia_smi(), "-rgc"), "nvidia-smi -rgc")


def _nvidia_smi() -> Tuple[str, str]:
    return "nvidia-smi", "--id=" + gpu_id()


def _fields(shell: Shell) -> List[str]:
    """Return the fields of the query as texts; empty if there is no GPU."""
    gpu = nvml() if isinstance(shell, LocalShell) else None
    if gpu is not None:
        return gpu.fields()
    for query in QUERIES:
        ran = shell.run(*_nvidia_smi(), query, FORMAT)
        words = [word.strip() for word in ran.output.split("\n")[0].split(",")]
        if ran.ok and len(words) == len(FIELDS.split(",")):
            return words
        if ran.code in (124, 127):  # no answer, or no nvidia-smi
            break
    return []


def _reasons(fields: List[str]) -> int:
    return int(fields[4], 16) if re.match(r"^0x[0-9a-fA-F]{1,16}$", fields[4]) else 0


def _difference(fields: List[str], wanted_mhz: int) -> str:
    """Say how the clock differs from the wanted one. An idle GPU may lower its clock in spite of a lock."""
    used_mhz = number(fields[0], 0, 1e5) if fields else None
    if used_mhz is None:
        return "nvidia-smi -lgc reported success, but the clock of the GPU cannot be read"
    lowered = used_mhz < wanted_mhz and _reasons(fields) & IDLE
    if abs(used_mhz - wanted_mhz) <= STEP_MHZ or lowered:
        return ""
    return "nvidia-smi -lgc reported success, but the GPU runs at %d MHz" % used_mhz
