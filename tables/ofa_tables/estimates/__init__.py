"""From trials to one latency per entry.

Reading order: ``device_speed.py`` (speed correction), ``entry.py`` (latency and interval),
``interpolation.py``, ``keys.py``.
"""
