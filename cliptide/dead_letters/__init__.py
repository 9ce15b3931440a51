"""The command that lists dead letters and publishes them again."""
