"""The command that measures a model or a running service on pairs, and compares two of them."""
