"""Connection ``adb``: phones by serial or model; phones of one model form a device pool."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from ofa_profiler.connections.adb.binary import SETTING as BINARY
from ofa_profiler.connections.adb.listing import Listed
from ofa_profiler.connections.adb.phone import PhoneConnection
from ofa_profiler.connections.adb.server import AdbServer, Phone
from ofa_profiler.connections.client import Agent
from ofa_profiler.connections.connection import Connection
from ofa_profiler.targets.target import Target
from ofa_tables.errors import DeviceError, Unreachable, UsageError

SETTINGS = ("adb-server", BINARY, "min-battery", "python", "reconnect-s")


class AdbConnection(Connection):
    """The phones of a target: those whose serials are its address, or every connected one of its models."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.require_settings(SETTINGS)
        if not target.address and not target.models:
            raise UsageError(
                f"{target.name} says neither which phone nor which model; write address = 'SERIAL' or models = ['…'] "
                f"below [{target.name}] into ./targets.toml, or call it by --target adb:SERIAL"
            )
        self._server = AdbServer(target.settings.get("adb-server", ""))
        self._members: tuple[PhoneConnection, ...] = ()

    @property
    def agent(self) -> Agent:
        """The current agent of the first phone that takes part."""
        if self._agent is None:
            self._agent = self.open()
        return self._working()[0].agent

    @property
    def members(self) -> Sequence[Connection]:
        if not self._members:
            listed = self._server.devices()
            serials = chosen(self.target, listed)
            for phone in left_out(self.target, listed):
                self.say(f"{phone} may be a {self.target.name} too, and takes no part: {phone.advice}")
            if len(serials) > 1:
                self.say(f"{len(serials)} phones share the work: {', '.join(serials)}")
            self._members = tuple(
                PhoneConnection(self.target, Phone(self._server, serial, _name(self.target, serial, len(serials))))
                for serial in serials
            )
            for member in self._members:
                member.say = self.say
        return self._members

    def open(self) -> Agent:
        """Open the phones; phones that cannot be measured now are excluded. Raises DeviceError if none is left."""
        failures = []
        for member in self.members:
            try:
                _ = member.agent
            except DeviceError as error:
                member.set_aside = str(error)
                failures.append(error)
        if not self._working():
            for member in self.members:
                member.set_aside = ""
            raise failures[0] if len(failures) == 1 else DeviceError("; ".join(map(str, failures)))
        for failure in failures:
            self.say(f"{failure}; continuing without it")
        first, *others = self._working()
        for other in others:
            self._require_alike(first, other)
        return first.agent

    def _working(self) -> list[Connection]:
        return [member for member in self.members if not member.set_aside]

    def _require_alike(self, first: Connection, other: Connection) -> None:
        """Require equal devices, since a table belongs to one device and a model may be sold with two chips. Raises
        DeviceError.
        """
        one, two = (member.agent.describe() for member in (first, other))
        if one["fingerprint"] != two["fingerprint"]:
            self.close()
            raise DeviceError(
                f"{first.name} ({one['chip']}, {one['os']}) and {other.name} ({two['chip']}, {two['os']}) are two "
                "devices, and would be two tables: name one with --target adb:SERIAL, or unplug the other"
            )

    def steps(self) -> Iterator[tuple[str, str]]:
        for member in self.members:
            yield from member.steps()

    def clean(self) -> str:
        return "; ".join(member.clean() for member in self.members)

    def provision(self, runtime: str | None) -> str:
        raise UsageError(
            f"{self.target.name} is a phone, and nothing is installed on phones from here: bring TFLite's "
            "benchmark_model with --set benchmark_model=PATH (docs/phones.md says where it is), or a Python by Termux"
        )

    def close(self) -> None:
        for member in self._members:
            member.close()


def chosen(target: Target, listed: Sequence[Listed]) -> list[str]:
    """The serials of the phones that a target refers to, never of others. Raises DeviceError, Unreachable."""
    if target.address:
        return [_by_serial(target.name, serial.strip(), listed) for serial in target.address.split(",")]
    fitting = [phone for phone in listed if phone.usable and _is_one(phone.model, target.models)]
    if not fitting:
        raise Unreachable(
            f"no {target.name} is connected (model {' or '.join(target.models)}); {_others(listed)}; plug it in, "
            "switch USB debugging on, or name another phone with --target adb:SERIAL"
        )
    return [_by_serial(target.name, phone.serial, listed) for phone in fitting]


def left_out(target: Target, listed: Sequence[Listed]) -> list[Listed]:
    """Other phones that the target may refer to but that cannot be used. An unauthorized phone does not report its
    model.
    """
    if target.address:
        return []
    return [p for p in listed if not p.usable and (not p.model or _is_one(p.model, target.models))]


def _by_serial(name: str, serial: str, listed: Sequence[Listed]) -> str:
    same = [phone for phone in listed if phone.serial == serial]
    if not same:
        raise Unreachable(f"{name}: no phone has the serial {serial}; {_others(listed)}; plug it in")
    if len(same) > 1:
        raise DeviceError(f"{name}: {len(same)} phones have the serial {serial}; unplug all but one of them")
    if not same[0].usable:
        raise Unreachable(f"{name} ({serial}): {same[0].advice}")
    return serial


def _is_one(model: str, patterns: Sequence[str]) -> bool:
    """Compare models as adb writes them: it replaces everything but letters and digits by an underscore."""
    plain = ("".join(c if c.isalnum() or c in "*?" else "_" for c in pattern) for pattern in patterns)
    return any(fnmatchcase(model, pattern) for pattern in plain)


def _others(listed: Sequence[Listed]) -> str:
    if not listed:
        return "adb sees no phone at all"
    return "adb sees " + ", ".join(f"{phone}{'' if phone.usable else ': ' + phone.advice}" for phone in listed)


def _name(target: Target, serial: str, phones: int) -> str:
    if phones == 1:
        return target.name
    return serial if target.name.startswith("adb:") else f"{target.name} {serial}"
