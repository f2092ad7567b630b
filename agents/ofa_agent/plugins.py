"""Entry points of other distributions. Before Python 3.8 this requires importlib-metadata."""

from typing import Any, Dict


def others(group: str) -> Dict[str, Any]:
    """Return the entry points of a group by name; empty if importlib.metadata is not available."""
    try:
        from importlib import metadata  # novm
    except ImportError:
        try:
            import importlib_metadata as metadata  # type: ignore[no-redef, import-not-found]
        except ImportError:
            return {}
    points: Any = metadata.entry_points()
    # Before Python 3.10 this is a plain dictionary.
    chosen = points.select(group=group) if hasattr(points, "select") else points.get(group, ())
    return {point.name: point for point in chosen}
