"""Commands that publish uploads and deletes."""
