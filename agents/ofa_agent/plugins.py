"""What other distributions add through entry points (Python 3.8 and up)."""

from typing import Any, Dict


def others(group: str) -> Dict[str, Any]:
    """Entry points by name; none on a Python that has no importlib.metadata."""
    try:
        from importlib import metadata  # novm
    except ImportError:
        return {}
    points: Any = metadata.entry_points()
    # Without select it is a plain dictionary: Python 3.9 and older.
    chosen = points.select(group=group) if hasattr(points, "select") else points.get(group, ())
    return {point.name: point for point in chosen}
