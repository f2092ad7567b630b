"""Settings of a connection, as ``ssh -G`` prints them: keys in lower case, each with its values."""

SYSTEM_CONFIG = "/etc/ssh/ssh_config"
GLOBAL_KNOWN_HOSTS = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]
USER_KNOWN_HOSTS = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
IDENTITY_FILES = [f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")]

Settings = dict[str, list[str]]


def first(settings: Settings, key: str, default: str = "") -> str:
    """Return the only or the first value of a key."""
    values = settings.get(key)
    return values[0] if values else default


def is_yes(settings: Settings, key: str, default: bool) -> bool:
    """Read a flag; OpenSSH prints some as yes and no, others as true and false."""
    value = first(settings, key).lower()
    return value in ("yes", "true") or (default and value not in ("no", "false"))


def paths(settings: Settings, key: str) -> list[str]:
    """Return the paths of a key; ``none`` is not a path."""
    return [path for path in settings.get(key, []) if path.lower() != "none"]
