"""The one trainer of CLIP models, its checkpoints, and the command that fine-tunes a model on pairs."""
