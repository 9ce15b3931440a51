"""`python -m query_api`: serve one index until SIGTERM or SIGINT.

Exit codes: 0 after a signal; 1 if the index or the encoder cannot be used, or after a fault, whose
traceback is in the log; 2 for bad settings, which include an address that is in use. Each failure is
one sentence on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, DamagedFile, DamagedIndexFile
from query_api.app import build_app
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, AddressRefused, listening
from query_api.http.connections.open_connections import bound_connections
from query_api.http.connections.stopping import STOPPING, StopSignals
from query_api.opened_index import (
    WAY_ON,
    Models,
    build_candidates,
    follows_root,
    load_first_encoder,
    open_index,
    showing_links,
)
from query_api.opened_uploads import open_contents_store, open_publisher
from query_api.options_from_settings import app_settings
from query_api.settings import (
    MULTIPROC_VARIABLE,
    SECTION,
    QueryApiSettings,
    Settings,
    read_settings,
)
from query_api.swap.index_swap import INDEX_SWAP
from query_api.telemetry.metrics_app import build_metrics_app
from query_api.telemetry.multiprocess import num_alive, scrape_registry
from query_api.telemetry.tracing import SERVICE
from service.command_line import build_parser
from service.encoder import load_warm_encoder, weigh_model
from service.environment import BadSettings
from service.logs import configure_logs, trace_crashes
from service.process.event_loop import run_in_loop
from service.process.exit_deadline import MARGIN_SECONDS, ExitDeadline, leave
from service.process.gc_tuning import freeze_gc
from service.program_metrics import describe_program, measure_process
from service.tracing import open_tracer

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None, called_as: str | None = None) -> int:
    build_parser("python -m query_api", __doc__, called_as).parse_args(arguments)
    return run(load_warm_encoder, weigh_model)


def run(
    load_encoder: Callable[[EncoderSettings], Encoder],
    weigh_model: Callable[[EncoderSettings], int | None] = lambda _: None,
) -> int:
    """Read the environment, open everything, serve; return the exit code."""
    try:
        settings = read_settings()
    except BadSettings as error:
        return _refuse(str(error), exit_code=2)
    configure_logs(settings.log.level, settings.log.format)
    trace_crashes()
    try:
        _open_and_serve(settings, Models(load_encoder, weigh_model))
    except AddressRefused as error:
        return _refuse(f"{_variable_of(error, settings.query_api)}: {error}", exit_code=2)
    except BadSettings as error:
        return _refuse(str(error), exit_code=2)
    except DamagedIndexFile as error:  # its message names the way on
        return _refuse(str(error), exit_code=1)
    except DamagedFile as error:
        return _refuse(f"{error}; {WAY_ON}", exit_code=1)
    except (ClipIndexError, OSError) as error:
        return _refuse(str(error), exit_code=1)
    except KeyboardInterrupt:  # while the encoder is being loaded: no event loop handles signals yet
        log.info("stopping")
    except Exception as error:
        log.error("fault", exc_info=error)
        return _refuse(" ".join(str(error).split()) or type(error).__name__, exit_code=1)
    return 0


def _open_and_serve(settings: Settings, models: Models) -> None:
    with ExitStack() as stack:
        tracer = stack.enter_context(open_tracer(SERVICE, settings.query_api.otlp_endpoint))
        contents = open_contents_store(settings.query_api)
        candidates = None
        if follows_root(settings.index):
            candidates = build_candidates(settings, models, contents, _num_processes)
        encoder = load_first_encoder(settings, models, candidates)
        reader = showing_links(open_index(settings, encoder.fingerprint), contents)
        registry = CollectorRegistry()
        publisher = stack.enter_context(open_publisher(settings))
        scraped = stack.enter_context(scrape_registry(registry, _shared_metrics()))
        describe_program(scraped)
        if scraped is registry:  # with several processes, each scrape would show another one
            measure_process(scraped)
        app = build_app(
            encoder,
            reader,
            registry,
            app_settings(settings, contents),
            publisher=publisher,
            tracer=tracer,
            candidates=candidates,
        )
        del encoder, reader  # after a swap nobody uses them, and this frame lasts as long as the service
        metrics_app = build_metrics_app(scraped, settings.query_api.host_names, refresh=app[INDEX_SWAP].show)
        with closing(ExitDeadline()) as deadline:
            run_in_loop(_serve(app, metrics_app, settings.query_api, deadline))


async def _serve(
    app: web.Application, metrics_app: web.Application, settings: QueryApiSettings, deadline: ExitDeadline
) -> None:
    """Serve until a signal. Then be unready, drain, stop listening, finish what is under way, and return."""
    signals = StopSignals()
    signals.listen()
    limits = ConnectionLimits(
        idle_seconds=settings.keepalive_seconds,
        send_seconds=settings.send_timeout_seconds,
        max_connections=bound_connections(settings.max_connections),
    )
    async with listening(metrics_app, _metrics_address(settings), limits) as metrics_address:
        freeze_gc()
        public = Address(settings.host, settings.port, settings.reuse_port)
        async with listening(app, public, limits, settings.shutdown_seconds) as address:
            log.info("listening", addresses=[address], metrics=metrics_address)
            await signals.wait()
            log.info("stopping", drain_seconds=settings.drain_seconds)
            app[STOPPING].begin()
            deadline.start(settings.drain_seconds + settings.shutdown_seconds + MARGIN_SECONDS)
            await signals.drain(settings.drain_seconds)


def _metrics_address(settings: QueryApiSettings) -> Address:
    return Address(settings.metrics_host, settings.metrics_port, settings.reuse_port)


def _variable_of(refused: AddressRefused, settings: QueryApiSettings) -> str:
    prefix = "METRICS_" if refused.address == _metrics_address(settings) else ""
    return SECTION + prefix + ("HOST" if refused.is_unknown_host else "PORT")


def _num_processes() -> int:
    """Count the processes that share the port: each of them loads the encoder of another index."""
    directory = _shared_metrics()
    return 1 if directory is None else num_alive(directory)


def _shared_metrics() -> Path | None:
    directory = os.environ.get(MULTIPROC_VARIABLE)
    return Path(directory) if directory else None


def _refuse(reason: str, *, exit_code: int) -> int:
    print(f"query_api: {reason}", file=sys.stderr)  # noqa: T201 (one sentence for a person)
    return exit_code


if __name__ == "__main__":
    leave(main())
