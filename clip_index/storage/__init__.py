"""Files that survive a power cut, their digests, and what is kept of them in memory."""
