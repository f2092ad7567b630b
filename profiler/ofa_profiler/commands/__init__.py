"""Command-line interface: each command parses flags, calls the library, and prints the result."""
