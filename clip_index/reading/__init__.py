"""Opening an index: readers that follow the generations of its shards, and hold what they serve."""
