"""Decodes records, and prepares pixels and tokens for the encoder, in a pool of threads."""
