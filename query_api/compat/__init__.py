"""The calls of two earlier services, answered in their shapes."""
