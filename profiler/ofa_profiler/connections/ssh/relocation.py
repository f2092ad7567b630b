"""A copy of the user's SSH configuration in which ``~`` is ``$HOME``.

ssh takes the home directory from the password database and ignores ``$HOME``. ofa-profile honours ``$HOME``, so it
gives ssh a copy in which the paths are absolute. Lines keep their numbers.
"""

import glob
import os
import re
from pathlib import Path

from ofa_profiler.connections.ssh.settings import SYSTEM_CONFIG
from ofa_profiler.connections.ssh.words import quote, split_keyword, split_words

PATHS = ("identityfile", "certificatefile", "userknownhostsfile", "identityagent", "revokedhostkeys")


def relocated_config(home: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the copy into ``folder``; return the path of its main file, and which file each copy is of."""
    copies: dict[Path, Path] = {}
    lines = []
    for original, base in ((home / ".ssh" / "config", home / ".ssh"), (Path(SYSTEM_CONFIG), Path("/etc/ssh"))):
        if original.is_file():
            lines.append(f"Include {quote(str(_copy(original, base, home, folder, copies)))}")
    main = folder / "config"
    main.write_bytes(os.fsencode("\n".join(lines) + "\n"))
    return main, {str(copy): str(original) for original, copy in reversed(copies.items())}


def include_paths(pattern: str, base: Path, home: Path) -> list[Path]:
    """Return the files of an Include, sorted as ssh reads them; a relative pattern starts at ``base``."""
    if pattern == "~" or pattern.startswith("~/"):
        pattern = str(home) + pattern[1:]
    found = glob.glob(str(base / os.path.expanduser(pattern)))
    return [Path(path) for path in sorted(found, key=os.fsencode)]


def _copy(original: Path, base: Path, home: Path, folder: Path, copies: dict[Path, Path]) -> Path:
    if original in copies:
        return copies[original]  # also for a file that includes itself, which ssh then refuses
    try:
        text = os.fsdecode(original.read_bytes())
        mode = original.stat().st_mode & 0o777
    except OSError:
        return original  # ssh reports it
    copy = copies[original] = folder / f"copy{len(copies)}.conf"
    lines = [_line(line, base, home, folder, copies) for line in text.split("\n")]
    copy.write_bytes(os.fsencode("\n".join(lines)))
    copy.chmod(mode)  # ssh refuses files that others can write
    return copy


def _line(line: str, base: Path, home: Path, folder: Path, copies: dict[Path, Path]) -> str:
    try:
        keyword, rest = split_keyword(line)
        words = split_words(rest) if keyword == "include" or keyword in PATHS else []
    except ValueError:
        return line  # ssh reports it
    if not words:
        return line
    if keyword != "include":
        return f"{keyword} {' '.join(quote(_path(word, home)) for word in words)}"
    files = [path for word in words for path in include_paths(word, base, home)]
    if not files:
        return "# nothing is included"
    return "Include " + " ".join(quote(str(_copy(path, base, home, folder, copies))) for path in files)


def _path(word: str, home: Path) -> str:
    if word == "~" or word.startswith("~/"):
        word = str(home) + word[1:]
    return re.sub("%%|%d", lambda found: str(home) if found[0] == "%d" else found[0], word)
