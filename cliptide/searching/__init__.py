"""The search command, its client of the query service, and how answers are shown."""
