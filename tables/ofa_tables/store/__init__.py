"""The table file: what is stored and how.

Reading order: ``measurement.py`` (one trial), ``schema.py`` and ``contents.py`` (what a file must be), ``sqlite.py``
(the file), ``merge.py``, ``files.py`` (atomic writes).
"""
