"""The command that searches, and how its answers are shown."""
