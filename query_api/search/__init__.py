"""Search: a request is read, covered by the index, embedded, ranked, rated and written."""
