"""`python -m benchmarks.processes.generated_query_service`: the real query service, generated encoder."""

from __future__ import annotations

import sys

from benchmarks.processes.generated_encoder import GeneratedEncoder
from query_api.__main__ import run

if __name__ == "__main__":
    sys.exit(run(lambda settings: GeneratedEncoder()))
