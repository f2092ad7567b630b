"""What a user reads if a table file cannot be used: what happened, to which file, and what to do."""

from pathlib import Path

from ofa_tables.errors import TableUnreadable


def unreadable(path: Path, error: BaseException) -> TableUnreadable:
    text = "it needs too much memory" if isinstance(error, MemoryError) else str(error)[:200]
    if text == "interrupted":
        return damaged(path, "reading it takes too long")
    if "locked" in text:
        return TableUnreadable(f"{path} is in use by another command; wait until it ends")
    if "full" in text or "disk I/O" in text:
        return no_room(path, text)
    if "readonly" in text or "unable to open" in text:
        return TableUnreadable(
            f"cannot open {path} for writing ({text}); check the permissions of the file and its folder"
        )
    if "not a database" in text:
        return foreign(path)
    return damaged(path, text)


def no_room(path: Path, text: str) -> TableUnreadable:
    return TableUnreadable(
        f"no space left for {path} ({text}); free some space and run the command again; stored results are kept"
    )


def foreign(path: Path) -> TableUnreadable:
    return TableUnreadable(f"{path} is not a latency table of ofa-profile; use ofa-table import for YAML or CSV")


def damaged(path: Path, text: str) -> TableUnreadable:
    return TableUnreadable(f"{path} is damaged ({text}); restore a copy, or measure again with --fresh")
