"""What the consumer counts and measures."""
