"""The table file: what is stored and how.

Reading order: ``measurement.py`` (one trial), ``header.py``, ``schema.py``, ``checksums.py`` and ``contents.py`` (what
a file must be), ``sqlite.py`` (the file), ``failures.py`` (messages), ``merge.py``, ``files.py`` (atomic writes).
"""
