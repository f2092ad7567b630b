"""Measurements kept for good, and the latency model that they give."""
