"""The model of the demo: a small CLIP, what it learns from, how it is trained, and its weights."""
