"""Model files of users: what is in them, and how long they and their layers take on a device.

Reading order: ``model_file.py`` (what a file contains), ``onnx_reader.py``, ``tflite_reader.py``, ``pt2_reader.py``,
``shapes.py`` (dynamic shapes), ``formats.py`` (which runtime reads which format), ``matching.py`` (layers and operators
of a file), ``measuring.py`` (the campaign), ``results.py``, ``profile.py``.
"""
