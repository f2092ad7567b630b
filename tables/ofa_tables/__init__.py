"""Latency tables: stored measurements, and the latency model that follows from them."""
