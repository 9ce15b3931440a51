"""One run of the demo: show the page, publish the catalogue, ask the queries, show the answers."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from clip_index.storage.index_roots import ObjectRoot, open_root
from cliptide.dead_letters.reading import TopicScan
from cliptide.demo.address import PageAddress, choose_port
from cliptide.demo.child_process import LOOPBACK
from cliptide.demo.engine import EngineName, engine_variables
from cliptide.demo.gallery_server import serving_page
from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue, sample_queries
from cliptide.demo.kept_consumer import ConsumerStopped
from cliptide.demo.metrics_addresses import metrics_addresses
from cliptide.demo.questions import AnsweredQuery, ask, gallery_sections, mean_precision
from cliptide.demo.report import DemoReport, build_answers_table
from cliptide.demo.services import DEAD_LETTER_TOPIC, DemoFiles, DemoServices, running_services
from cliptide.demo.small_clip.model import write_model_directory
from cliptide.demo.uploads.events import UploadEvents
from cliptide.demo.uploads.stream import Stream, StreamResult
from cliptide.searching.gallery import build_gallery
from cliptide.searching.searchable import find_missing
from cliptide.terminal.connections import open_source
from event_log.kafka.settings import KafkaSettings

READY_TIMEOUT_SECONDS = 120.0
CHECK_SECONDS = 0.5
_NEEDS_EMPTY = "the demo starts with an empty log, so it needs an empty index"


class DirectoryNotEmpty(Exception):
    """The chosen directory or bucket is not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The flags of one run. Without a `directory` the demo uses a temporary one and removes it at the end.

    Without a `port` the page is at 8080, or at the next port that is free.
    """

    num_images: int = 2_000
    num_texts: int = 200
    seed: int = 1
    rate: float = 60.0
    timeout_seconds: float = 600.0
    directory: Path | None = None
    host: str = LOOPBACK
    port: int | None = None
    public_url: str | None = None
    reference_folders: tuple[Path, ...] = ()
    bucket: str | None = None
    engine: EngineName = "directory"


@dataclass(frozen=True, slots=True)
class DemoRun:
    """The demo while its services run."""

    options: DemoOptions
    services: DemoServices
    files: DemoFiles
    page: PageAddress
    console: Console

    def measure(self) -> tuple[DemoReport, Path]:
        """Publish the catalogue and ask the sample queries. Return the figures and the gallery's file."""
        options = self.options
        self.services.wait_until_ready(READY_TIMEOUT_SECONDS)
        catalogue = build_catalogue(options.num_images, options.num_texts, options.seed)
        self._say(f"drawing and publishing {len(catalogue):,} uploads")
        events = UploadEvents(self.page.link_url, self.files.pictures)
        stream = Stream(self.services, events, self.console, options.rate, options.timeout_seconds)
        result = stream.run(catalogue)
        contents = {content.content_id: content for content in catalogue}
        self._say("asking the sample queries")
        answered = ask(self.services.query_client, sample_queries(catalogue), contents)
        self.console.print(build_answers_table(answered))
        return self._report(result, answered), self._write_gallery(answered, contents)

    def stay(self, gallery: Path) -> None:
        """Keep everything running until Ctrl-C, or until the broker or the query service ends by itself."""
        with serving_page(gallery.read_text(encoding="utf-8")) as address:
            self._say(f"gallery of the answers:  {address}")
            self._say_where_things_are()
            self._watch()

    def stay_without_figures(self, reason: Exception) -> None:
        """Keep the page running until Ctrl-C, over what has been indexed."""
        if isinstance(reason, ConsumerStopped):
            self._say_that_indexing_stopped(reason)
        else:
            self._say(str(reason))
        self._say_where_things_are()
        self._watch(is_told=isinstance(reason, ConsumerStopped))

    def _watch(self, *, is_told: bool = False) -> None:
        while True:
            try:
                self.services.check()
            except ConsumerStopped as stopped:
                if not is_told:
                    self._say_that_indexing_stopped(stopped)
                is_told = True
            threading.Event().wait(CHECK_SECONDS)

    def _say_that_indexing_stopped(self, stopped: ConsumerStopped) -> None:
        self._say(str(stopped))
        self._say(
            f"The page at {self.page.url}/ goes on. It finds what was indexed before; new uploads are not "
            "indexed. To begin anew, stop the demo with Ctrl-C and start it again."
        )

    def _say_where_things_are(self) -> None:
        self._say(f"search in a browser:     {self.page.url}/")
        self._say(f"query service:           {self.page.url}")
        self._say(f"broker:                  {self.services.kafka.bootstrap_servers}")
        for service, address in metrics_addresses(self.files.directory).items():
            self._say(f"{f'metrics, {service}:':<25}{address}")
        self._say(f"logs and index:          {self.files.directory}")
        self._say(f"folder for references:   {self.files.pictures}")
        self._say("for the command line, in another terminal:")
        for name, value in self._command_line_variables().items():
            self._say(f"  export {name}={shlex.quote(value)}")
        self._say(f'  {_command()} search "a dotted yellow umbrella"')
        self._say("Ctrl-C stops everything.")

    def _command_line_variables(self) -> dict[str, str]:
        return {
            "CLIPTIDE_QUERY_URL": self.page.url,
            "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": self.services.kafka.bootstrap_servers,
            "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(self.services.kafka.properties)),
            "CLIPTIDE_INDEX__ROOT": str(self.files.index_root),
            **({"CLIPTIDE_INDEX__CACHE_DIR": str(self.files.index_cache)} if self.files.bucket else {}),
            "CLIPTIDE_ENCODER__MODEL": str(self.files.model),
            **self.services.engine,
        }

    def _report(self, result: StreamResult, answered: Sequence[AnsweredQuery]) -> DemoReport:
        self._say("looking up every published content, and the dead letters")
        missing = list(find_missing(self.services.query_client, result.deliveries))
        for content_id in missing[:10]:
            self._say(f"lost: {content_id}")
        return DemoReport(
            published=len(result.deliveries),
            searchable=len(result.deliveries) - len(missing),
            dead_letters=count_dead_letters(self.services.kafka),
            published_per_second=result.published_per_second,
            seconds=result.seconds,
            searchable_after_seconds=result.searchable_after_seconds,
            precision=mean_precision(answered),
        )

    def _write_gallery(
        self, answered: Sequence[AnsweredQuery], contents: dict[str, CatalogueContent]
    ) -> Path:
        path = self.files.directory / "gallery.html"
        path.write_text(
            build_gallery("cliptide demo", gallery_sections(answered, contents)), encoding="utf-8"
        )
        return path

    def _say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def count_dead_letters(kafka: KafkaSettings) -> int:
    with open_source(kafka) as source:
        return sum(1 for _ in TopicScan(source, DEAD_LETTER_TOPIC).records())


@contextmanager
def running_demo(options: DemoOptions, console: Console) -> Iterator[DemoRun]:
    """Start the services, and print the page's address as soon as it answers. Stop them at the end."""
    with ExitStack() as stack:
        directory = stack.enter_context(_directory(options.directory))
        stack.enter_context(_termination_as_interrupt())
        engine = stack.enter_context(engine_variables(options.engine))
        page = PageAddress(options.host, choose_port(options.host, options.port), options.public_url)
        folders = tuple(folder.resolve() for folder in options.reference_folders)
        files = DemoFiles(directory, folders, options.bucket)
        _refuse_full_bucket(files)
        files.pictures.mkdir()
        with _status(console, "starting broker, consumer and query service") as started:
            model_directory = write_model_directory(files.model)
            with running_services(files, model_directory, page, engine) as services:
                services.wait_until_answering(READY_TIMEOUT_SECONDS)
                started()
                console.print(f"open {page.url}/", highlight=False, soft_wrap=True)
                if not page.is_loopback:
                    console.print("everybody who reaches this machine may search, upload and delete")
                yield DemoRun(options, services, files, page, console)


def _refuse_full_bucket(files: DemoFiles) -> None:
    if files.bucket is None:
        return
    if open_root(ObjectRoot(files.bucket, files.index_cache)).list_names():
        raise DirectoryNotEmpty(f"{files.bucket} is not empty: {_NEEDS_EMPTY}")


@contextmanager
def _status(console: Console, text: str) -> Iterator[Callable[[], None]]:
    """Show a line at a terminal until the yielded function is called. A log gets no such line."""
    status = console.status(text)
    if console.is_terminal:
        status.start()
    try:
        yield status.stop
    finally:
        status.stop()


@contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        if chosen.exists() and any(chosen.iterdir()):
            raise DirectoryNotEmpty(f"{chosen} is not empty: {_NEEDS_EMPTY}")
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="cliptide-demo-") as path:
        yield Path(path).resolve()


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that every child is stopped in order.

    This sets SIGINT too, because a shell starts background jobs with SIGINT ignored.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _command() -> str:
    """Return how to call the command line: by its name if the shell finds it, otherwise by this Python."""
    return "cliptide" if shutil.which("cliptide") else f"{sys.executable} -m cliptide"
