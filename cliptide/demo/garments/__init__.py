"""The demo's catalogue: drawn garments and their captions."""
