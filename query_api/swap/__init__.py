"""The index and the encoder that serve together, and how both are exchanged in one step."""
