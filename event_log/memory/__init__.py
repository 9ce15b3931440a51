"""A log in memory that keeps the same promises as Kafka, for tests."""
