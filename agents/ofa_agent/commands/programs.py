"""Find the programs of command templates, also in folders that are often not on the PATH."""

import os
import shutil
import sys

FOLDERS = (
    os.path.dirname(sys.executable),  # programs of Python packages
    os.path.expanduser("~/.local/bin"),  # the same, after pip install --user
    "/usr/src/tensorrt/bin",  # trtexec of JetPack
)


def find_program(name: str) -> str:
    """Return the path of a program on this machine; the name itself if it was not found."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(FOLDERS)) or name
