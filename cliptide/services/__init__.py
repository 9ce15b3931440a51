"""The commands that run a service in this process: a consumer or a query service."""
