"""Describe the device.

Reading order: ``description.py`` (what the agent reports), ``shell.py`` (access to the device), ``jetpack.py`` (Jetson
software), ``probe.py`` (requirements that this Python meets).
"""
