"""What was in flight when a process died, handled one record at a time."""
