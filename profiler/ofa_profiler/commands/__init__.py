"""The commands: each reads flags, calls the rest, and prints."""
