"""A Shell reads, lists and runs on a device. This one is for the machine that the agent runs on."""

import glob
import os
import subprocess
from typing import List, Optional


class LocalShell:
    """Reads that fail give None: what a device does not tell is unknown, not an error."""

    def read(self, path: str) -> Optional[str]:
        try:
            with open(path, errors="replace") as file:
                return file.read(1 << 20).replace("\0", "").strip()
        except OSError:
            return None

    def list(self, pattern: str) -> List[str]:
        return sorted(glob.glob(pattern))

    def run(self, *command: str, timeout_s: float = 5.0) -> Optional[str]:
        environment = dict(os.environ, LC_ALL="C")
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                env=environment,
                universal_newlines=True,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None
