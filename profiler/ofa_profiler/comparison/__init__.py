"""Compare predicted and measured latency.

Reading order: ``compare.py`` (measures networks), ``statistics.py`` (errors and noise), ``verify.py`` (used by search).
"""
