"""The thread that encodes, and the batches it encodes."""
