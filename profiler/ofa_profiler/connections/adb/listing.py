"""The lists of devices that an adb server sends.

https://android.googlesource.com/platform/packages/modules/adb: docs/dev/services.md (host:devices, host:devices-l,
host:track-devices), transport.cpp (``append_transport``), and the states in adb.cpp (``to_string(ConnectionState)``).
"""

import re
from dataclasses import dataclass

NO_PERMISSIONS = "no permissions"
ADVICE = {
    "unauthorized": "it does not trust this computer yet: unlock it, and tap Allow under 'Allow USB debugging?'",
    "authorizing": "it is being asked whether it trusts this computer: unlock it, and tap Allow",
    "offline": "it is offline: unlock it, unplug it and plug it in again, or try adb reconnect offline",
    NO_PERMISSIONS: "this user may not open it: install its udev rules (Debian: android-sdk-platform-tools-common), "
    "replug it",
    "recovery": "it is in recovery: start Android with adb reboot",
    "rescue": "it is in rescue mode: start Android with adb reboot",
    "sideload": "it waits for a sideload: start Android with adb reboot",
    "bootloader": "it is in its boot loader: start Android with fastboot reboot",
    "connecting": "it is just connecting: try again in a moment",
    "detached": "another program detached it: try adb attach",
}
STATES = ("device", "host", "noperm", "unknown", *ADVICE)
_ANY_STATE = "|".join(sorted(STATES, key=len, reverse=True))
_STATE = re.compile(rf"\s({_ANY_STATE})(?=\s|$)")
_TAGS = re.compile(r"(?:\s+(?:usb|product|model|device|features|transport_id):\S*)+\s*$|\s+$")


@dataclass(frozen=True)
class Listed:
    """A phone in the list of the server; it can be used only in the state ``device``."""

    serial: str
    state: str
    model: str = ""

    @property
    def usable(self) -> bool:
        return self.state == "device"

    @property
    def advice(self) -> str:
        return ADVICE.get(self.state, f"its state is {self.state}")

    def __str__(self) -> str:
        return f"{self.serial} ({self.model or self.state})"


def parse_states(text: str) -> dict[str, str]:
    """Return the state of every device by serial, from ``host:devices``, ``host:devices-l`` or ``host:track-devices``.

    Serials may contain blanks: those of wireless debugging do.
    """
    return dict(_serial_and_state(line) for line in text.splitlines() if line.strip())


def parse_devices(short: str, long: str) -> list[Listed]:
    """Return all devices: states from ``host:devices``, models from ``host:devices-l``."""
    models = {}
    for line in long.splitlines():
        model = re.search(r"\smodel:(\S+)", line)
        models[_serial_and_state(line)[0]] = model.group(1) if model else ""
    return [Listed(serial, state, models.get(serial, "")) for serial, state in parse_states(short).items()]


def _serial_and_state(line: str) -> tuple[str, str]:
    """Split one line. Without a tab the last known state is the state, and everything before it the serial."""
    serial, tab, state = line.partition("\t")
    if tab:
        state = state.strip()
        return serial.strip(), NO_PERMISSIONS if state.startswith(NO_PERMISSIONS) else state
    head = _TAGS.sub("", line)
    if NO_PERMISSIONS in head:
        return head.partition(NO_PERMISSIONS)[0].strip(), NO_PERMISSIONS
    known = list(_STATE.finditer(head))
    if known:
        return head[: known[-1].start()].strip(), known[-1].group(1)
    serial, _, state = head.strip().rpartition(" ")
    return (serial.strip(), state) if serial else (state, "unknown")
