"""Pairs of a picture and its caption: where they come from, their checks, and how well a model finds them."""
