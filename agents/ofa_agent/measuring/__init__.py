"""Run one trial.

Reading order: ``executor.py`` (the queue), ``worker.py`` (the process with the runtime), ``block_trial.py``,
``reference.py``, ``bursts.py``, ``timing.py`` (when to stop), ``parts.py`` (blocks inside a network), ``power.py``.
"""
