"""Queries that share one encoder."""
