"""Contents that an event only refers to: which are allowed, where they lie and how they are fetched."""
