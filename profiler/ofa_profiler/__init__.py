"""Latency tables measured on real devices, and the networks that they help to find.

Public functions (docs/python.md): ``profile``, ``open_table``, ``predict``, ``search``, ``compare``,
``profile_model``, ``read_model``.

Reading order: ``library.py``, ``campaign/`` (measure blocks), ``comparison/`` (measure networks), ``targets/``,
``connections/`` (reach a device), ``lowering/`` (model files), ``report/`` (pages), ``commands/``.
"""

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # gRPC reads it once; its log lines are not for the user

if TYPE_CHECKING:
    from ofa_profiler.library import (
        ModelProfile,
        ProfileResult,
        SearchResult,
        compare,
        open_table,
        predict,
        profile,
        profile_model,
        read_model,
        search,
    )

__all__ = [
    "ModelProfile",
    "ProfileResult",
    "SearchResult",
    "compare",
    "open_table",
    "predict",
    "profile",
    "profile_model",
    "read_model",
    "search",
]


def __getattr__(name: str) -> Any:
    """Import the library on first use: the agent beside a phone imports this package, too, and needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ofa_profiler import library

    return getattr(library, name)
