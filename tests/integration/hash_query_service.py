"""`python -m tests.integration.hash_query_service`: the real query service, with a hashing encoder."""

from __future__ import annotations

import sys

from fakes.hash_encoder import HashEncoder
from query_api.__main__ import run

if __name__ == "__main__":
    sys.exit(run(lambda settings: HashEncoder()))
