"""The command that folds the log again and compares it with the index."""
