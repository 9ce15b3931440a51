"""Metrics, the stages of a request, and traces."""
