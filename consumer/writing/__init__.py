"""The thread that owns every shard and commits it, and the seam to the index behind it."""
