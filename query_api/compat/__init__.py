"""The calls of two earlier services, whose clients work unchanged."""
