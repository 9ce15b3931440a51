"""Connections, keys, limits and bodies: everything before a handler sees a request."""
