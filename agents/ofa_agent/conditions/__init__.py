"""Conditions of a device that change latencies. One file per knob, registered here.

The agent always reads conditions, and sets one only on request of a host. It restores the previous state when the lease
ends and when the agent exits. If the agent was killed, the next one restores the state at its start.

Other distributions register subclasses of Knob in the entry point group ``ofa_agent.conditions``.
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

# In the order in which they are set: the power mode determines the available clocks.
BUILT_IN = (Load, Thermal, PowerMode, CpuFreq, JetsonClocks, NvidiaClocks, Heat, Screen, FixedPerformance, Affinity)


@lru_cache(maxsize=None)  # the entry points take milliseconds to find, and every trial reads conditions
def knobs() -> List[Knob]:
    return [knob() for knob in BUILT_IN] + [point.load()() for point in plugins.others("ofa_agent.conditions").values()]


def settings() -> List[str]:
    """Return the names that ``--set`` accepts."""
    return [setting for knob in knobs() for setting in knob.settings]


def read(shell: Shell, of_all: bool = True, of_gpu: bool = False) -> Any:
    """Read the current condition of the device.

    Unless ``of_all`` is true, knobs that run commands are skipped, except those of the GPU if ``of_gpu`` is true.
    """
    condition = wire.Condition()
    for knob in knobs():
        if of_all or knob.cheap or (of_gpu and knob.of_gpu):
            knob.read(shell, condition)
    return condition


class Setter:
    """Sets conditions and restores their previous state, which the file at ``path`` keeps if the process is killed."""

    def __init__(self, shell: Shell, path: str, log: Callable[..., None]) -> None:
        self._shell = shell
        self._path = path
        self._log = log
        self.notes: List[str] = []
        self._knobs = {setting: knob for knob in knobs() for setting in knob.settings}

    def set(self, wanted: Dict[str, str], threads: int = 0) -> Dict[str, str]:
        """Set the conditions for jobs with this number of threads (0: unknown), and read them back.

        Return the ones that are not in effect, with the reasons. ``notes`` then says what the values mean here.
        """
        refused = {setting: "this agent has no such setting" for setting in wanted if setting not in self._knobs}
        values, notes = {}, {}
        for setting, knob in self._knobs.items():
            if setting not in wanted:
                continue
            values[setting], notes[setting] = knob.resolve(self._shell, setting, wanted[setting], threads)
            try:
                state = knob.state(self._shell, setting)
                if state is None:
                    raise CannotSet("this device does not have this setting")
                self._remember(self._found() + [(setting, state)])  # before it is set: the agent may be killed
                knob.set(self._shell, setting, values[setting])
                self._log("set", setting=setting, value=values[setting], was=state)
            except CannotSet as reason:
                refused[setting] = str(reason)
                self._log("not set", setting=setting, value=wanted[setting], reason=str(reason))
        refused.update(self._without_effect({name: value for name, value in values.items() if name not in refused}))
        self.notes = [
            "%s=%s %s" % (name, wanted[name], note) for name, note in notes.items() if note and name not in refused
        ]
        return refused

    def _without_effect(self, wanted: Dict[str, str]) -> Dict[str, str]:
        """Read the settings back and return those without effect. At the end, because one may undo another."""
        found = {}
        for setting, value in wanted.items():
            try:
                self._knobs[setting].check(self._shell, setting, value)
            except CannotSet as reason:
                found[setting] = str(reason)
                self._log("without effect", setting=setting, value=value, reason=str(reason))
        return found

    def put_back(self) -> None:
        """Restore the conditions in reverse order. One that cannot be restored is tried again later."""
        left = []
        for setting, state in reversed(self._found()):
            try:
                if setting in self._knobs:
                    self._knobs[setting].put_back(self._shell, setting, state)
                    self._log("put back", setting=setting, value=state)
            except (CannotSet, ValueError, TypeError, AttributeError) as reason:  # or the state is damaged
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
            self._log("conditions file is not readable", path=self._path, reason=str(error))
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
