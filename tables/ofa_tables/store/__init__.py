"""The table file: what is stored and how.

Reading order: ``measurement.py`` (one trial), ``sqlite.py`` (the file), ``merge.py``, ``files.py`` (atomic writes).
"""
