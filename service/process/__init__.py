"""What a process sets for itself: threads, memory, garbage collection, event loop, the end."""
