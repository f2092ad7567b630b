"""The gRPC protocol: ``agent.proto`` defines the messages, ``messages.py`` builds them at run time."""
