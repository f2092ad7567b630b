"""Files and folders in places where other users can write, such as ``/tmp``.

Another user may have put a link, another folder or a pipe where the agent expects its own. What is found is
checked after it is opened, or without following links.
"""

import errno
import os
import stat

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
REMEDY = "remove it, or set OFA_AGENT_HOME to your own directory"


def require_private_folder(path: str, may_be_link: bool = False) -> None:
    """Create the folder if it is missing. Raises PermissionError if others could write there, or if it is a link."""
    try:
        os.makedirs(path, mode=0o700)
    except FileExistsError:
        pass
    found = os.stat(path) if may_be_link else os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(errno.EACCES, "is %s, not a directory; %s" % (_kind(found.st_mode), REMEDY), path)
    if found.st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "belongs to another user; %s" % REMEDY, path)
    if found.st_mode & WRITABLE_BY_OTHERS:
        raise PermissionError(errno.EACCES, "can be written by other users; %s" % REMEDY, path)


def open_regular(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file without following a link and without waiting. Raises OSError."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    found = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(found):
        os.close(descriptor)
        raise PermissionError(errno.EACCES, "is %s, not a file; remove it" % _kind(found), path)
    return descriptor


def _kind(mode: int) -> str:
    names = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory"}
    return names.get(stat.S_IFMT(mode), "something else")
