"""How a command line treats logs."""

from __future__ import annotations

import logging
import sys

import structlog


def quieten_logs() -> None:
    """Show only what is critical, on standard error.

    A command itself says in one line what went wrong. Logs would fill the terminal, for example with
    every attempt to reach a broker that is away.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
