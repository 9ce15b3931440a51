"""The commands that prepare an index for another model, compare it with the served one, and switch to it."""
