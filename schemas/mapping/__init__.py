"""Rules that turn a platform's own records into upload events."""
