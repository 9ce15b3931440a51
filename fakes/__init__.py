"""What tests, tools and benchmarks share: fakes of small protocols, and builders with default arguments."""
