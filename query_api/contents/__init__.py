"""The contents of the index: reading, browsing, thumbnails, and a live stream of changes."""
