"""Uploads and deletes that clients publish through the service."""
