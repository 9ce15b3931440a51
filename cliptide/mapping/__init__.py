"""`cliptide mapping`: try a mapping on a record."""
