"""The pool of threads that decodes records and prepares pixels and tokens."""
