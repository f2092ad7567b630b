"""What the device is.

``description.py`` reads it through a ``shell.py``; ``jetpack.py`` knows Jetson software, ``probe.py`` checks the Python.
"""
