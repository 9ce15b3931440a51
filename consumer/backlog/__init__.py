"""Records that are read and not yet encoded, in a lane for each partition."""
