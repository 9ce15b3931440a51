"""What every answer shows: the fields of a content, and the snapshot it comes from."""
