"""Targets: named devices and how to reach them.

Read ``target.py`` first; ``table_target.py`` finds the device on which a table was measured.
"""
