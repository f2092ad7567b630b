"""The host: measures Blocks on Targets, compares predictions with devices, and holds the commands."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # what gRPC logs beside errors is not for the user; it reads this once
