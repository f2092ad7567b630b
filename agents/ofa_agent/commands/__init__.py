"""Command templates: how to run a command line tool that times a model file, and how to read its output.

Read ``template.py`` first. ``output.py`` reads latencies and layer times, ``layers.py`` assigns layers to operators,
``permission.py`` decides which commands an agent runs, ``programs.py`` finds
their programs, ``place.py`` runs them, ``versions.py`` the versions.
``runtimes/command.py`` runs the tools.
"""
