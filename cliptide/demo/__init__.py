"""The demo: a drawn catalogue of garments, and a small CLIP model trained on it."""
