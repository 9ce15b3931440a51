"""Reading an index: a searcher over the newest generations, and what it returns."""
