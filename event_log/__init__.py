"""Kafka's one home: record source, publisher, and their in-memory twins. Moves bytes, knows no schema."""
