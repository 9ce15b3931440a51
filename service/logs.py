"""Logs: one JSON object a line, or readable lines at a terminal."""

from __future__ import annotations

import faulthandler
import logging
import sys
import warnings
from typing import Literal, TextIO, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat: TypeAlias = Literal["auto", "json", "console"]
_STDERR = 2
_FIRST = ("event", "level", "timestamp")


def trace_crashes() -> None:
    """Write the stack of each thread to stderr when a signal kills the process (SIGSEGV, SIGBUS, …).

    A file that is truncated while it is mapped is such a case, and would leave no trace otherwise.
    """
    faulthandler.enable(_STDERR, all_threads=True)


def configure_logs(level: str = "info", log_format: LogFormat = "auto") -> None:
    """Write structured logs of this level (debug, info, warning, error) and above to stderr.

    `auto` is `console` at a terminal and `json` everywhere else. Warnings of libraries become lines of
    the same form. Tracebacks are written without the values of variables, because settings hold
    credentials.
    """
    is_console = sys.stderr.isatty() if log_format == "auto" else log_format == "console"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_console_processors() if is_console else _json_processors()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _forward_libraries()


def _json_processors() -> list[Processor]:
    return [structlog.processors.format_exc_info, _event_first, structlog.processors.JSONRenderer()]


def _console_processors() -> list[Processor]:
    colors = sys.stderr.isatty()
    formatter = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=formatter)]


def _event_first(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """Put the event before everything else, so that a person who scrolls through lines sees it."""
    first = {name: entry.pop(name) for name in _FIRST if name in entry}
    return {**first, **entry}


class _Forwarding(logging.Handler):
    """Writes what a library logs as one of our lines; its own text would break the JSON of the others."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger("service.logs")
        level = min(record.levelno // 10 * 10, logging.ERROR)
        log.log(
            level,
            "a library reports",
            library=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )


def _forward_libraries() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forwarding)]:
        root.removeHandler(handler)
    root.addHandler(_Forwarding(logging.WARNING))
    warnings.showwarning = _forward_warning
    _leave_pictures_out()


def _forward_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write what a library warns of as one of our lines. Python's own two lines are no JSON."""
    log = structlog.get_logger("service.logs")
    log.warning("a library reports", library=category.__module__, message=f"{category.__name__}: {message}")


def _leave_pictures_out() -> None:
    """Leave out what Pillow says of a picture, because its dead letter or its answer says what is wrong.

    One picture can have it say thousands of different things, which Python would remember, too.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
