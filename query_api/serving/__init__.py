"""The index that is served, and the threads that search it."""
