"""Logs: lines for a person at a terminal, JSON for everything else."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor


def configure_logs() -> None:
    """Send structured logs to stderr, from level info on."""
    last: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if sys.stderr.isatty():
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,  # tracebacks without the values of variables: settings hold credentials
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
