"""An index as a whole: what it was built from, its model and canaries, and which index of a root serves."""
