"""Records that are set aside, and when their number is a flood."""
