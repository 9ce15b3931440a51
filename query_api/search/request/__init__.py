"""A search request: its models, how it is read, and what it may cost."""
