"""The agent: runs on the device, times jobs, streams measurements to a host. Python 3.6 and later."""

__version__ = "0.1.0"
