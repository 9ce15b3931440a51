"""The command that folds the log again and compares the index with it."""
