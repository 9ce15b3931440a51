"""What a command line does with logs."""

from __future__ import annotations

import logging
import sys

import structlog


def quieten_logs() -> None:
    """Show only what is critical, on standard error.

    A command says itself what went wrong, in one line; a broker that is away would
    otherwise fill the terminal with every attempt to reach it.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
