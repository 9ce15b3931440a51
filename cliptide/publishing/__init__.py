"""The commands that publish uploads and deletes."""
