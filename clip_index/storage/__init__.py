"""What holds the index's files: the store's protocol, the directory behind it, digests, mapped arrays."""
