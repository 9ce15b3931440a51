"""The schemas of a registry: fetched once each, kept on disk, and waited for while the registry is away."""
