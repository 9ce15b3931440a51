"""The write side: reads records from the log and writes them into shards."""
