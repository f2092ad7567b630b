"""Termux: the app that provides Python on a phone. Its debug builds allow adb in through ``run-as``.

https://github.com/termux/termux-app: "Debugging"; its files lie in the app's own folder.
"""

from ofa_agent.device.shell import Ran
from ofa_profiler.connections.adb.server import Phone
from ofa_profiler.connections.deploy import COMMAND_S

APP = "com.termux"
FILES = f"/data/data/{APP}/files"
# run-as starts without the user's environment, and takes only words, so the script is one line.
ENTER = f"""
exec run-as {APP} {FILES}/usr/bin/env PREFIX={FILES}/usr HOME={FILES}/home TMPDIR={FILES}/usr/tmp LANG=en_US.UTF-8 \
PATH={FILES}/usr/bin LD_LIBRARY_PATH={FILES}/usr/lib \
{FILES}/usr/bin/sh -c 'IFS= read -r script; eval "$(printf %b "$script")"'
"""


class Termux:
    """A link to the user of the Termux app on a phone."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone

    def is_there(self) -> bool:
        return self._phone.run(f"run-as {APP} true").ok

    def run(self, script: str, *lines: str, payload: bytes = b"", timeout_s: float = COMMAND_S) -> Ran:
        encoded = script.strip().replace("\\", "\\\\").replace("\n", "\\n")
        return self._phone.run(ENTER, encoded, *lines, payload=payload, timeout_s=timeout_s)
