"""The uploads of the demo: their events, how they are published, and how soon they are searchable."""
