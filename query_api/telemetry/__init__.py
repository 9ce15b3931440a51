"""Metrics, stages of a request and traces."""
