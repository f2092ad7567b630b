"""What the device is.

Reading order: ``description.py`` (what the agent reports), ``shell.py`` (how it is read), ``jetpack.py`` (Jetson),
``probe.py`` (what this Python lacks).
"""
