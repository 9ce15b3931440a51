"""What may refuse a request before its work begins: hosts, keys, origins, rates and concurrency."""
