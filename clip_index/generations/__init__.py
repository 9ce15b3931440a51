"""What is current: manifests, their history, takeovers, tombstones, watermarks and garbage."""
