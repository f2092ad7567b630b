"""A phone's Shell. Requests are combined, since each adb call takes tens of milliseconds."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ofa_agent.device.shell import Ran, Shell
from ofa_profiler.connections.adb.server import Phone
from ofa_tables.errors import Unreachable

FOLDER = "/data/local/tmp/ofa-profile"
CORES = f"{FOLDER}/cores"  # cores of the next command, as a list; absent: what Android allows
EVERY_CORE = "all"  # not the cores that are online now: phones switch cores off and on

# Reads a mark, then requests: a kind and its words, one per line, then an empty line. END can stop what it
# runs if its host is gone.
BATCH = r"""
IFS= read -r mark
running=/data/local/tmp/ofa-profile/running
while IFS= read -r kind; do
  set --
  while IFS= read -r word && [ -n "$word" ]; do set -- "$@" "$word"; done
  case $kind in
    read) cat "$1" 2>/dev/null ;;
    list) (IFS=; set +f; for path in $1; do [ -e "$path" ] && echo "$path"; done; true) ;;
    run) "$@" </dev/null ;;
    hold) "$@" </dev/null & echo $! > $running; wait $!; code=$?; rm -f $running; (exit $code) ;;
  esac
  code=$?
  echo; echo "$mark $code"; echo "$mark" >&2
done
"""
WRITE = 'IFS= read -r path; [ -e "$path" ] || exit 2; cat > "$path"'
KEEP = "mkdir -p /data/local/tmp/ofa-profile && cat > /data/local/tmp/ofa-profile/cores"
FREE = "rm -f /data/local/tmp/ofa-profile/cores"
END = r"""
running=/data/local/tmp/ofa-profile/running
[ -s $running ] || exit 0
read -r pid < $running
kill -9 "$pid" 2>/dev/null
rm -f $running
"""
# Held while the stream to it is open, so that nothing is left if a host or a phone is gone. Not with exec,
# whose descriptors mksh does not pass on. flock exists since Android 7.
LOCK = "/data/local/tmp/ofa-profile.lock"
HOLD = r"""
IFS= read -r holder
lock=/data/local/tmp/ofa-profile.lock
(
  if command -v flock >/dev/null && ! flock -n 9; then cat $lock >&2; exit 3; fi
  echo "$holder" > $lock
  echo held
  cat > /dev/null
) 9>> $lock
"""
HELD = 3
NOT_THERE = 2
NO_ANSWER = Ran(126, "", "the phone does not answer")
# The commands of conditions report values that change slowly.
COMMANDS_AGE_S = 5.0
FILES_AGE_S = 0.2
OF_LATE_S = 10.0  # a value that was not requested for this long is no longer fetched


class Request(NamedTuple):
    """``read`` a path, ``list`` a pattern, ``run`` a command; ``hold`` is a command that may have to be ended."""

    kind: str
    words: tuple[str, ...]


class PhoneShell(Shell):
    """What all shells of a phone share."""

    here = False

    def pinned(self) -> str | None:
        return self.read(CORES) or EVERY_CORE


class AdbShell(PhoneShell):
    """A Shell over adb. Raises Unreachable if the phone is gone, in addition to the errors of a Shell."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone

    def read(self, path: str) -> str | None:
        (ran,) = self.ask([Request("read", (path,))])
        return ran.output.replace("\0", "") if ran.ok else None

    def write(self, path: str, text: str) -> None:
        ran = self.phone.run(WRITE, path, payload=text.encode())
        if ran.code == NOT_THERE and not ran.error:
            raise FileNotFoundError(2, "No such file or directory", path)
        if not ran.ok:
            raise PermissionError(13, "Permission denied (a phone that is not rooted lets nobody set it)", path)

    def list(self, pattern: str) -> list[str]:
        (ran,) = self.ask([Request("list", (pattern,))])
        return sorted(ran.output.splitlines())

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran:
        (ran,) = self.ask([Request("run", command)], timeout_s)
        return ran

    def pin(self, cpus: str) -> Ran:
        return self.phone.run(FREE) if cpus == EVERY_CORE else self.phone.run(KEEP, payload=cpus.encode())

    def ask(self, requests: Sequence[Request], timeout_s: float = 10.0) -> tuple[Ran, ...]:
        """Answer all requests in one call; if it timed out, each answer says so."""
        mark = f"ofa-profile:{secrets.token_hex(8)}"
        lines = [mark]
        for request in requests:
            assert all(word and "\n" not in word for word in request.words)
            lines += [request.kind, *request.words, ""]
        ran = self.phone.run(BATCH, *lines, timeout_s=timeout_s)
        if not ran.ok:
            return (ran,) * len(requests)
        said = ran.output.split(f"{mark} ")
        complained = ran.error.split(mark)
        answers = []
        for index in range(len(requests)):
            if index + 1 >= len(said):
                answers.append(Ran(126, "", f"{self.phone.name}'s shell answered less than it was asked"))
                continue
            output = said[index].partition("\n")[2] if index else said[index]
            answers.append(Ran(int(said[index + 1].split(None, 1)[0]), output.strip(), complained[index].strip()))
        return tuple(answers)

    def end_running(self) -> None:
        """End what a host that is gone left running."""
        self.phone.run(END)


class Snapshot(PhoneShell):
    """A Shell for repeated requests: outdated answers are fetched in one call together with all that is requested as
    often. If the phone is gone, answers are empty.
    """

    def __init__(self, shell: AdbShell, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._shell = shell
        self._clock_s = clock_s
        self._known: dict[Request, tuple[float, Ran]] = {}
        self._asked_s: dict[Request, float] = {}
        self._mutex = threading.Lock()

    def read(self, path: str) -> str | None:
        ran = self._answer(Request("read", (path,)))
        return ran.output.replace("\0", "") if ran.ok else None

    def write(self, path: str, text: str) -> None:
        self._forget()
        self._shell.write(path, text)

    def list(self, pattern: str) -> list[str]:
        return sorted(self._answer(Request("list", (pattern,))).output.splitlines())

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran:
        if command[:1] == ("dumpsys",) or command[:1] == ("getprop",):
            return self._answer(Request("run", command))
        self._forget()
        return self._shell.run(*command, timeout_s=timeout_s)

    def pin(self, cpus: str) -> Ran:
        self._forget()
        return self._shell.pin(cpus)

    def refresh(self) -> None:
        self._forget()

    def _answer(self, request: Request) -> Ran:
        with self._mutex:  # an agent may describe its device while it measures
            now_s = self._clock_s()
            if self._is_old(request, now_s):
                self._fetch(request, now_s)
            self._asked_s[request] = now_s
            return self._known.get(request, (now_s, NO_ANSWER))[1]

    def _fetch(self, request: Request, now_s: float) -> None:
        """Fetch an answer, and every other outdated one that was requested recently."""
        late = (asked for asked, at_s in self._asked_s.items() if now_s - at_s < OF_LATE_S)
        wanted = dict.fromkeys([request, *(asked for asked in late if self._is_old(asked, now_s))])
        try:
            answers = self._shell.ask(list(wanted), timeout_s=30.0)
        except Unreachable:
            self._known.clear()
            return
        at_s = self._clock_s()
        self._known.update((asked, (at_s, ran)) for asked, ran in zip(wanted, answers, strict=True))

    def _forget(self) -> None:
        """Forget cached answers, because a set condition changes them."""
        with self._mutex:
            self._known.clear()

    def _is_old(self, request: Request, now_s: float) -> bool:
        age_s = COMMANDS_AGE_S if request.kind == "run" else FILES_AGE_S
        return request not in self._known or now_s - self._known[request][0] > age_s
