"""Other work on the device: load, stolen time, and involuntary context switches.

https://docs.kernel.org/filesystems/proc.html, sections 1.1 and 1.7.
"""

import re
from typing import Any

from ofa_agent.conditions.knob import Knob, number
from ofa_agent.device.shell import Shell

TICKS_A_SECOND = 100.0  # USER_HZ, the same on every Linux
STOLEN = 8  # the index of the column in the first line of /proc/stat


class Load(Knob):
    def read(self, shell: Shell, condition: Any) -> None:
        condition.load = number((shell.read("/proc/loadavg") or "").split(" ")[0], 0.0, 1e6) or 0.0
        words = (shell.read("/proc/stat") or "").split("\n")[0].split()
        if len(words) > STOLEN and words[0] == "cpu":
            condition.stolen_s = (number(words[STOLEN], 0, 1e15) or 0.0) / TICKS_A_SECOND
        for path in shell.list("/proc/self/task/*/status") if shell.here else ():
            found = re.search(r"^nonvoluntary_ctxt_switches:\s*(\d{1,15})$", shell.read(path) or "", re.MULTILINE)
            condition.involuntary_switches += int(found.group(1)) if found else 0
