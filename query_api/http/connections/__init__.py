"""Connections: the sockets they come from, how many there may be, and how each one ends."""
