"""Run one trial.

Reading order: ``executor.py`` (the queue), ``worker.py`` (the process with the runtime), ``timing.py`` (when to stop),
``parts.py`` (blocks inside a network), ``power.py``.
"""
