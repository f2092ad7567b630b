"""The host: measures Blocks on Targets, compares predictions with devices, and holds the commands."""
