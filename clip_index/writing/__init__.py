"""The one writer of a shard: buffer, commit and merges."""
