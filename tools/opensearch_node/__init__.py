"""OpenSearch from its own jars, one node or several on this machine, for tests and the demo."""
