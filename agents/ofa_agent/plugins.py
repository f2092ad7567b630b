"""Entry points of other distributions; before Python 3.8 only with importlib-metadata."""

from typing import Any, Dict


def others(group: str) -> Dict[str, Any]:
    """Entry points by name; none where nothing can look for them."""
    try:
        from importlib import metadata  # novm
    except ImportError:
        try:
            import importlib_metadata as metadata  # type: ignore[no-redef, import-not-found]
        except ImportError:
            return {}
    points: Any = metadata.entry_points()
    # Without select it is a plain dictionary: Python 3.9 and older.
    chosen = points.select(group=group) if hasattr(points, "select") else points.get(group, ())
    return {point.name: point for point in chosen}
