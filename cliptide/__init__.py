"""The command line, the demo and the training of its model."""
