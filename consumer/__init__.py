"""The write side: records in, shards out."""
