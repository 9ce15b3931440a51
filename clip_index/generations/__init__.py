"""What a shard's current state is: manifests, their history, takeovers, tombstones, garbage."""
