"""The public contract: upload events, their Avro schema, their codec."""
