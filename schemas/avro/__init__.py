"""Avro records: their schemas, and how their fields become an upload's."""
