"""Conditions of a device that change latencies. One file per knob, registered here.

Each is read always, set only when a host asks, and put back as it was found: when that host is done, when the agent
ends, and by the next agent's start where this one was killed.

Other distributions add theirs through the entry point group ``ofa_agent.conditions``: a class of Knob.
"""

import json
import os
from functools import lru_cache
from typing import Any, Callable, Dict, List, Tuple

from ofa_agent import plugins
from ofa_agent.conditions.affinity import Affinity
from ofa_agent.conditions.android import FixedPerformance, Heat, Screen
from ofa_agent.conditions.cpufreq import CpuFreq
from ofa_agent.conditions.jetson import JetsonClocks, PowerMode
from ofa_agent.conditions.knob import CannotSet, Knob
from ofa_agent.conditions.load import Load
from ofa_agent.conditions.nvidia import NvidiaClocks
from ofa_agent.conditions.thermal import Thermal
from ofa_agent.device.shell import Shell
from ofa_agent.protocol import messages as wire

# In the order in which they are set: a power mode decides which clocks there are.
BUILT_IN = (Load, Thermal, PowerMode, CpuFreq, JetsonClocks, NvidiaClocks, Heat, Screen, FixedPerformance, Affinity)


@lru_cache(maxsize=None)  # looking for entry points takes milliseconds, and this is read around every trial
def knobs() -> List[Knob]:
    return [knob() for knob in BUILT_IN] + [point.load()() for point in plugins.others("ofa_agent.conditions").values()]


def settings() -> List[str]:
    """What ``--set`` knows."""
    return [setting for knob in knobs() for setting in knob.settings]


def read(shell: Shell, of_all: bool = True) -> Any:
    """The device's condition at this moment; without those that take a command, unless it is ``of_all``."""
    condition = wire.Condition()
    for knob in knobs():
        if of_all or knob.cheap:
            knob.read(shell, condition)
    return condition


class Setter:
    """Sets what a host asks for, and puts back what it found. ``path`` remembers that beyond this process."""

    def __init__(self, shell: Shell, path: str, log: Callable[..., None]) -> None:
        self._shell = shell
        self._path = path
        self._log = log
        self._knobs = {setting: knob for knob in knobs() for setting in knob.settings}

    def set(self, wanted: Dict[str, str]) -> Dict[str, str]:
        """Those that could not be set, and why."""
        refused = {setting: "this agent knows no such setting" for setting in wanted if setting not in self._knobs}
        for setting, knob in self._knobs.items():
            if setting not in wanted:
                continue
            try:
                state = knob.state(self._shell, setting)
                if state is None:
                    raise CannotSet("this device has none")
                self._remember(self._found() + [(setting, state)])  # before it is set: what follows may be the end
                knob.set(self._shell, setting, wanted[setting])
                self._log("set", setting=setting, value=wanted[setting], was=state)
            except CannotSet as reason:
                refused[setting] = str(reason)
                self._log("not set", setting=setting, value=wanted[setting], reason=str(reason))
        return refused

    def put_back(self) -> None:
        """Restore the conditions, the last one first. One that cannot be restored is tried again later."""
        left = []
        for setting, state in reversed(self._found()):
            try:
                if setting in self._knobs:
                    self._knobs[setting].put_back(self._shell, setting, state)
                    self._log("put back", setting=setting, value=state)
            except (CannotSet, ValueError, TypeError, AttributeError) as reason:  # or what it was is damaged
                left.append((setting, state))
                self._log("not put back", setting=setting, value=state, reason=str(reason))
        self._remember(left[::-1])

    def _found(self) -> List[Tuple[str, str]]:
        try:
            with open(self._path) as file:
                return [(str(setting), str(state)) for setting, state in json.load(file)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            self._log("what was found is not known any more", path=self._path, reason=str(error))
            return []

    def _remember(self, found: List[Tuple[str, str]]) -> None:
        if not found:
            if os.path.exists(self._path):
                os.remove(self._path)
            return
        draft = self._path + ".new"
        with open(draft, "w") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
