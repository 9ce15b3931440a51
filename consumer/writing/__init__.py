"""The thread that owns every shard and commits it."""
