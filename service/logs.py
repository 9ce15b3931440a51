"""Logs: readable lines at a terminal, JSON everywhere else."""

from __future__ import annotations

import faulthandler
import logging
import sys

import structlog
from structlog.typing import Processor

_STDERR = 2


def trace_crashes() -> None:
    """Write the stack of each thread to stderr when a signal kills the process (SIGSEGV, SIGBUS, …).

    A file that is truncated while it is mapped is such a case, and would leave no trace otherwise.
    """
    faulthandler.enable(_STDERR, all_threads=True)


def configure_logs(level: str = "info") -> None:
    """Write structured logs of this level (debug, info, warning, error) and above to stderr.

    Tracebacks are written without the values of variables, because settings hold credentials.
    """
    last: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if sys.stderr.isatty():
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
