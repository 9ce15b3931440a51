"""Pages of a ranking, and the signed cursors that lead from one to the next."""
