"""The command that lists, repairs and rolls back generations."""
