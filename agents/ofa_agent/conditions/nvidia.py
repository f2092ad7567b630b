"""NVIDIA GPUs in PCs and servers, through ``nvidia-smi`` (``nvidia-smi --help-query-gpu`` lists the fields)."""

import re
from typing import Any, Optional

from ofa_agent.conditions.knob import CannotSet, Knob, number, require
from ofa_agent.device.shell import Shell

FIELDS = "clocks.sm,clocks.max.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
QUERY = ("nvidia-smi", "--id=0", "--query-gpu=" + FIELDS, "--format=csv,noheader,nounits")
IDLE = 0x1  # an idle GPU lowers its clock
AS_SET = 0x2  # clocks that a user set
SYNC = 0x10


class NvidiaClocks(Knob):
    """``gpu-clock=MHz`` locks the clock of the first GPU.

    The GPU does not report an earlier lock, so the clock is always unlocked afterwards.
    """

    settings = ("gpu-clock",)
    cheap = False

    def read(self, shell: Shell, condition: Any) -> None:
        words = [word.strip() for word in shell.run(*QUERY).output.split("\n")[0].split(",")]
        if len(words) != len(FIELDS.split(",")):
            return
        condition.gpu_clock_mhz = int(number(words[0], 0, 20e3) or 0)
        temperature_c = number(words[2], -60, 200)
        if temperature_c is not None:
            condition.temperatures_c["gpu"] = temperature_c
        condition.power_w = number(words[3], 0, 1e5) or 0.0
        if re.match(r"^0x[0-9a-fA-F]{1,16}$", words[4]):
            condition.throttled = condition.throttled or bool(int(words[4], 16) & ~(IDLE | AS_SET | SYNC))

    def state(self, shell: Shell, setting: str) -> Optional[str]:
        return "unlocked" if shell.run(*QUERY).ok else None

    def set(self, shell: Shell, setting: str, value: str) -> None:
        if not value.isdigit():
            raise CannotSet("gpu-clock=%s is not valid; use a number of MHz" % value)
        require(shell.run("nvidia-smi", "--id=0", "-lgc", "%s,%s" % (value, value)), "nvidia-smi -lgc")

    def put_back(self, shell: Shell, setting: str, state: str) -> None:
        require(shell.run("nvidia-smi", "--id=0", "-rgc"), "nvidia-smi -rgc")
