"""Indexes to measure, built once by the real writer."""
