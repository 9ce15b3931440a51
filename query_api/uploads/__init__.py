"""Uploads and deletes that callers publish through the service."""
