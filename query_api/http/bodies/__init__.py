"""Bodies: received whole, inflated, and read as JSON or as forms."""
