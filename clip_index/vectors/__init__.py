"""Embeddings in files that FAISS searches; FAISS is imported nowhere else."""
