"""From entries to the latency of a network.

Reading order: ``latency_model.py``, ``calibration.py``, ``passes.py`` (measurement noise),
``ranks.py`` (rank correlation).
"""
