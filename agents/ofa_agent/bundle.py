"""Build the agent as one zip application; the same sources give the same bytes."""

import hashlib
import io
import os
import zipfile
from typing import List, Tuple

PACKAGE = "ofa_agent"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
# The first lines run on any Python, to report one that is too old.
_MAIN = b"""import sys
if sys.version_info < (3, 6):
    sys.exit("error: the agent requires Python 3.6 or later; this is Python " + sys.version.split()[0])
from ofa_agent.__main__ import main
sys.exit(main())
"""


def build() -> bytes:
    """Return the content of the zip application; run it with ``python3 FILE serve``.

    An agent that runs from a zip application returns the content of that file.
    """
    archive = getattr(__loader__, "archive", None)  # type: ignore[name-defined]
    if archive:
        with open(archive, "rb") as file:
            return file.read()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [("__main__.py", _MAIN)] + _sources():
            info = zipfile.ZipInfo(name, _LONG_AGO)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return b"#!/usr/bin/env python3\n" + buffer.getvalue()


def file_name(content: bytes) -> str:
    return "ofa-agent-%s.pyz" % hashlib.sha256(content).hexdigest()[:12]


def _sources() -> List[Tuple[str, bytes]]:
    root = os.path.dirname(os.path.abspath(__file__))
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith((".py", ".binpb")):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found.append((os.path.join(PACKAGE, os.path.relpath(path, root)), file.read()))
    return sorted(found)
