"""Kafka through confluent_kafka, which nothing else in the project imports."""
