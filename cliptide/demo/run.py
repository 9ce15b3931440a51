"""One run of the demo: start the services, publish the catalogue, ask the queries, show the answers."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cliptide.dead_letters.reading import TopicScan
from cliptide.demo.gallery_server import serving_page
from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue, sample_queries
from cliptide.demo.questions import AnsweredQuery, ask, gallery_sections, mean_precision
from cliptide.demo.report import DemoReport, build_answers_table
from cliptide.demo.services import DEAD_LETTER_TOPIC, DemoServices, index_root, running_services
from cliptide.demo.small_clip.model import write_model_directory
from cliptide.demo.stream import Stream, StreamResult
from cliptide.searching.gallery import build_gallery
from cliptide.searching.searchable import find_missing
from cliptide.terminal.connections import open_source
from event_log.kafka.settings import KafkaSettings

READY_TIMEOUT_SECONDS = 120.0
CHECK_SECONDS = 0.5


class DirectoryNotEmpty(Exception):
    """The chosen directory is not empty."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The flags of one run. Without a `directory` the demo uses a temporary one and removes it at the end."""

    num_images: int = 2_000
    num_texts: int = 200
    seed: int = 1
    rate: float = 60.0
    timeout_seconds: float = 600.0
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class DemoRun:
    """The demo while its services run."""

    options: DemoOptions
    services: DemoServices
    directory: Path
    console: Console

    def measure(self) -> tuple[DemoReport, Path]:
        """Publish the catalogue and ask the sample queries. Return the figures and the gallery's file."""
        options = self.options
        catalogue = build_catalogue(options.num_images, options.num_texts, options.seed)
        self._say(f"drawing and publishing {len(catalogue):,} uploads")
        stream = Stream(self.services, self.console, options.rate, options.timeout_seconds)
        result = stream.run(catalogue)
        contents = {content.content_id: content for content in catalogue}
        self._say("asking the sample queries")
        answered = ask(self.services.query_client, sample_queries(catalogue), contents)
        self.console.print(build_answers_table(answered))
        return self._report(result, answered), self._write_gallery(answered, contents)

    def stay(self, gallery: Path) -> None:
        """Keep everything running until Ctrl-C, or until a service ends by itself."""
        with serving_page(gallery.read_text(encoding="utf-8")) as address:
            url = self.services.query_client.url
            self._say(f"search in a browser:     {url}/")
            self._say(f"gallery of the answers:  {address}")
            self._say(f"query service:           {url}")
            self._say(f"broker:                  {self.services.kafka.bootstrap_servers}")
            self._say(f"logs and index:          {self.directory}")
            self._say("for the command line, in another terminal:")
            for name, value in self._command_line_variables().items():
                self._say(f"  export {name}={shlex.quote(value)}")
            self._say(f'  {_command()} search "a dotted yellow umbrella"')
            self._say("Ctrl-C stops everything.")
            while True:
                self.services.check()
                threading.Event().wait(CHECK_SECONDS)

    def _command_line_variables(self) -> dict[str, str]:
        return {
            "CLIPTIDE_QUERY_URL": self.services.query_client.url,
            "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": self.services.kafka.bootstrap_servers,
            "CLIPTIDE_INDEX__ROOT": str(index_root(self.directory)),
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
        path = self.directory / "gallery.html"
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
    """Start the services, and stop them when the block ends, also by an error."""
    with _directory(options.directory) as directory, _termination_as_interrupt():
        console.print("starting broker, consumer and query service")
        model_directory = write_model_directory(directory / "model")
        with running_services(directory, model_directory) as services:
            services.wait_until_ready(READY_TIMEOUT_SECONDS)
            yield DemoRun(options, services, directory, console)


@contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        if chosen.exists() and any(chosen.iterdir()):
            raise DirectoryNotEmpty(
                f"{chosen} is not empty: the demo starts with an empty log, so it needs an empty index"
            )
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
