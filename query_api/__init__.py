"""The read side: shards in, HTTP out."""
