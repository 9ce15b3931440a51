"""Records that were in flight when a process died, and how they are handled one at a time."""
