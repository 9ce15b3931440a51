"""One immutable segment: its columns, its rows and its files."""
