"""Answers from the views of all shards: the best contents, browsing, counts of values, samples."""
