"""Targets: named devices and how to reach them.

Read ``target.py`` first. ``commands.py`` reads command templates. ``table_target.py`` finds the device on which a table
was measured.
"""
