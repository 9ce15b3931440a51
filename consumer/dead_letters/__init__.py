"""Records that are set aside, and when so many are a flood."""
