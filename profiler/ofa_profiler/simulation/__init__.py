"""Simulated targets: tables that are computed from the declared parameters of an engine, without a device.

Read ``engine.py`` first (the latency of a block). ``fit.py`` scales the parameters to measured latencies, and
``compute.py`` makes the table.
"""
