"""Measure what a table lacks, on one device or several.

Reading order: ``profile.py`` (what ofa-profile runs), ``jobs.py``, ``profiled_networks.py``,
``campaign.py`` (the loop), ``device_pool.py`` (one thread per device), ``device_agreement.py``,
``decoding.py``, ``disturbance.py``, ``effort.py``, ``choosing_resolutions.py``, ``summary.py``.
"""
