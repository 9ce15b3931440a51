"""What a route promises, in code and in the OpenAPI document."""
