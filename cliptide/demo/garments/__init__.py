"""The demo's catalogue: garments that are drawn, with their captions."""
