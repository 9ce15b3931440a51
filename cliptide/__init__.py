"""The command line, the demo, and the training of the demo's model."""
