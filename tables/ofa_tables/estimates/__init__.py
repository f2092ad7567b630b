"""From trials to one latency per entry.

Reading order: ``device_speed.py`` (speed correction), ``entry.py`` (latency and interval of what was measured),
``measured.py`` (both for a whole table), ``physics.py`` and ``cost_model.py`` (what blocks have in common),
``prior.py`` (other tables), ``estimates.py`` (all entries, measured or not). ``keys.py`` parses keys.
"""
