"""Records read ahead of the encoder, a lane for each partition."""
