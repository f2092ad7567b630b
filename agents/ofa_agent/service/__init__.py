"""The gRPC service and what it owns.

Reading order: ``server.py``, ``streams.py`` (limits for streams), ``lease.py`` (one host at a time), ``models.py``
(model cache), ``lock.py`` (one agent per device), ``detach.py``.
"""
