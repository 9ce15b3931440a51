"""A log in memory that keeps the same promises, for tests."""
