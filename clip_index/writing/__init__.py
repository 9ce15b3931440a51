"""The one writer of a shard: its buffer, commits and merges."""
