"""The index that is served through the engine's seam, the threads that search it, and background jobs."""
