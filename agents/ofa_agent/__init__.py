"""The agent: runs on the device, times Blocks, streams Measurements to a host. Python 3.6 and up."""

__version__ = "0.1.0"
