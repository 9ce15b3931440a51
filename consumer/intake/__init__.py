"""The thread that owns the Kafka client, and what it decides about partitions."""
