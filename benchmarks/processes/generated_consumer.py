"""`python -m benchmarks.processes.generated_consumer`: the real consumer, with the generated encoder."""

from __future__ import annotations

import os

from benchmarks.processes.generated_encoder import GeneratedEncoder
from consumer.__main__ import run

if __name__ == "__main__":
    os._exit(run(lambda settings: GeneratedEncoder()))
