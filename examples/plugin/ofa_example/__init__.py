"""Example plug-in of ofa-profile: ``runtime.py`` adds a runtime, ``space.py`` a search space."""
