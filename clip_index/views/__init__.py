"""What a generation of a shard shows: segments without dead rows, the tail, the best rows of each."""
