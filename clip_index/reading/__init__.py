"""A searcher over the newest generations, and what it answers."""
