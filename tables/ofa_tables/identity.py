"""Identity of a table: what was measured, and how. Latencies of different identities are never mixed."""

from dataclasses import asdict, dataclass, field

from ofa_tables.words import counted

IMPORTED = "imported"

# Ways to time blocks.
ALONE = "alone"
IN_NETWORKS = "in-networks"
LAYERS = "layers"  # of model files; there are no blocks


@dataclass(frozen=True)
class Settings:
    """How jobs run. Latencies with different settings cannot be compared."""

    precision: str = "fp32"
    threads: int = 1
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.precision}, {counted(self.threads, 'thread')}, batch {self.batch}"


@dataclass(frozen=True)
class Identity:
    """What a table was measured on, and how.

    ``fingerprint`` identifies the device; it is "imported" for published files. ``blocks`` is the way in which blocks
    were timed: ALONE or IN_NETWORKS; or LAYERS in a table of models.
    """

    target: str
    fingerprint: str
    runtime: str
    runtime_version: str
    settings: Settings = field(default_factory=Settings)
    blocks: str = ALONE

    def differences(self, other: "Identity", mine_is: str = "there", other_is: str = "here") -> list[str]:
        """Describe each difference, such as "threads 1 there, 4 here"; empty if the two are equal."""
        mine, theirs = asdict(self), asdict(other)
        mine.update(mine.pop("settings"))
        theirs.update(theirs.pop("settings"))
        unknown = {*asdict(self.settings), "blocks"} if IMPORTED in (self.runtime, other.runtime) else set()
        return [
            f"{name.replace('_', ' ')} {mine[name]} {mine_is}, {theirs[name]} {other_is}"
            for name in mine
            if mine[name] != theirs[name] and name not in unknown
        ]
