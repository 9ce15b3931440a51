"""The public contract: upload events, their wire formats, and the headers of dead letters."""
