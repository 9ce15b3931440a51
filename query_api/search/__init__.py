"""Search: from the question to the ranked hits."""
