"""The OpenAPI document, flat enough for the generators of clients."""
