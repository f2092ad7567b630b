"""What a table contains: problems (``check.py``), differences (``diff.py``), a summary (``summary.py``)."""
