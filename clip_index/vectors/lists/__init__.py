"""Inverted lists: the embeddings around each centroid, the codes beside them, and how both are scanned."""
