"""The calls of two earlier services, for their clients."""
