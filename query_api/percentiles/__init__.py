"""What a score means: its rank among the scores of background queries."""
