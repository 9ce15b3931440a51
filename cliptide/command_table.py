"""The commands of `cliptide`, each with its summary. A command's module is imported when it is run.

Importing all of them takes more than a second, and a shell asks for the names whenever Tab is pressed.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module

import click


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """Where a command's function is, and what it does in one line."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "compare": CommandEntry(
        "cliptide.reindexing.compare_command", "compare_command", "Compare what two indexes answer."
    ),
    "consume": CommandEntry(
        "cliptide.services.command", "consume_command", "Run a consumer, which fills the index."
    ),
    "dead-letters": CommandEntry(
        "cliptide.dead_letters.command", "dead_letters_command", "List records set aside, or republish them."
    ),
    "delete": CommandEntry(
        "cliptide.publishing.delete_command", "delete_command", "Publish a delete event for each id."
    ),
    "demo": CommandEntry("cliptide.demo.__main__", "main", "Run everything on a drawn catalogue."),
    "doctor": CommandEntry(
        "cliptide.doctor.command", "doctor_command", "Try everything that the services need."
    ),
    "evaluate": CommandEntry(
        "cliptide.evaluation.command", "evaluate_command", "Measure a model or a service on pairs."
    ),
    "finetune": CommandEntry(
        "cliptide.finetuning.command", "finetune_command", "Tune a model on pictures and captions."
    ),
    "mapping": CommandEntry(
        "cliptide.mapping.command", "mapping_command", "Try a mapping's rules on a record."
    ),
    "publish": CommandEntry(
        "cliptide.publishing.publish_command", "publish_command", "Publish a folder, a file, a CSV or JSONL."
    ),
    "reindex": CommandEntry(
        "cliptide.reindexing.reindex_command", "reindex_command", "Begin an index with another model."
    ),
    "rollback": CommandEntry(
        "cliptide.reindexing.switch_command", "rollback_command", "Let the former index serve again."
    ),
    "search": CommandEntry(
        "cliptide.searching.search_command", "search_command", "Search by a text or by a picture."
    ),
    "serve": CommandEntry("cliptide.services.command", "serve_command", "Run a query service."),
    "snapshot": CommandEntry(
        "cliptide.snapshot.command", "snapshot_command", "List generations, repair, or go back."
    ),
    "switch": CommandEntry(
        "cliptide.reindexing.switch_command", "switch_command", "Let another index serve, without a pause."
    ),
    "verify": CommandEntry(
        "cliptide.verify.command", "verify_command", "Compare the index with the whole log."
    ),
}


class LazyCommands(MutableMapping[str, click.Command]):
    """Imports a command when it is looked up. Names are known without an import."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            entry = COMMANDS[name]
            self._loaded[name] = getattr(import_module(entry.module), entry.function)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name} is built in")

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)
