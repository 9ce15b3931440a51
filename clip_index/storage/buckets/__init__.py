"""An index in an object store: its bucket, and the local copies of what is read."""
