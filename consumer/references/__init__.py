"""Contents that an event only refers to: which are allowed, where they lie, how they are fetched."""
