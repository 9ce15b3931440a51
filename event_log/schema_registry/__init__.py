"""A schema registry through confluent_kafka's client, which is imported when a registry is set."""
