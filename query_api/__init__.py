"""The query service: it answers searches, recommendations and uploads over HTTP."""
