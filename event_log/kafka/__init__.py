"""Kafka through confluent_kafka. No other package imports that library."""
