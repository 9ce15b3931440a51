"""Inverted lists: the embeddings around each centroid, which lists a query scans, and the scan."""
