"""`cliptide reindex`: begin an index with another model beside the served one, and say what it will take."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import IndexMissing, IndexRefused
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.indexes.recorded_model import RecordedModel, record_model
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot
from cliptide.reindexing.build_watch import BuildWatch
from cliptide.reindexing.disk_errors import disk_errors_named
from cliptide.reindexing.forecast import Forecast, build_forecast
from cliptide.reindexing.kept_contents import KeptContent, Source, find_kept
from cliptide.reindexing.log_access import LogAccess, ask_log
from cliptide.reindexing.seeding import Seeding, fetch_by_http
from cliptide.reindexing.shard_gaps import refuse_other_log
from cliptide.terminal.options import (
    checked_index_id,
    dead_letter_topic_option,
    kafka_options,
    mapping_option,
    option,
    root_option,
)
from cliptide.terminal.paths import NewFile
from cliptide.terminal.registry import registry_options
from cliptide.terminal.summary import counted, json_option, print_summary
from cliptide.terminal.waiting import tell
from event_log.kafka.settings import KafkaSettings
from event_log.records import TopicDescription

_NUM_NAMED = 20


@click.command("reindex", short_help="Begin an index with another model.")
@root_option
@option(
    "--index-id",
    required=True,
    callback=checked_index_id,
    envvar="CLIPTIDE_REINDEX_INDEX_ID",
    help="The id of the new index.",
)
@option(
    "--model",
    envvar="CLIPTIDE_REINDEX_MODEL",
    help="The model of the new index: a name of open_clip's, hf-hub:owner/name, or a directory.",
)
@option(
    "--pretrained",
    default=EncoderSettings().pretrained,
    envvar="CLIPTIDE_REINDEX_PRETRAINED",
    help="Weights of a model that is given by name: a tag of open_clip's, or a safetensors file.",
)
@option("--group-id", help="The consumer group of the new index. Default: cliptide-INDEX_ID.")
@option("--dry-run", is_flag=True, help="Say what it will take, and write nothing.")
@option("--fetch", is_flag=True, help="Fetch pictures that the log does not hold any more from their links.")
@option(
    "--lost",
    "lost_file",
    type=NewFile(),
    help="Write the contents that cannot be taken over to this file, one JSON object a line.",
)
@option(
    "--watch", is_flag=True, help="Show how far the consumer of the new index is, until it has caught up."
)
@dead_letter_topic_option
@mapping_option
@kafka_options
@registry_options
@json_option("reindex")
def reindex_command(
    index_root: IndexRoot, index_id: str, kafka: KafkaSettings, watch: bool, as_json: bool, **flags: Any
) -> None:
    """Describe an index for another model beside the one that serves, and say beforehand what it will take.

    It tells the contents to encode, the time (by encoding some for seconds), the disk, and which contents
    the log does not hold any more. Of these, texts are taken from the served index, and with --fetch
    pictures from their links if the bytes there still have their digest. What remains is listed. Until the
    consumer begins, the same command can be given again, for example with --fetch: it goes on.

    Then a consumer builds the index, on any machine that sees the root:
    CLIPTIDE_INDEX__ID=INDEX_ID CLIPTIDE_ENCODER__MODEL=MODEL cliptide consume. `--watch` shows how far it
    is, and `cliptide switch INDEX_ID` lets it serve.
    """
    with disk_errors_named():
        if watch:
            served = IndexDirectory.open(index_root)
            _watch(IndexDirectory.open(index_root, index_id), served, as_json=as_json)
            return
        if flags["model"] is None:
            raise click.UsageError("name the --model of the new index")
        parts = (flags.pop(name) for name in ("dead_letter_topic", "mapping", "registry"))
        _begin(index_root, index_id, LogAccess(index_root, kafka, *parts), flags, as_json=as_json)


def _begin(
    root: IndexRoot, index_id: str, access: LogAccess, flags: dict[str, Any], *, as_json: bool
) -> None:
    """Step 1 opens what is served, step 2 asks the log, step 3 loads the model and tries it. Then it is told
    what the index will take. Step 4 describes it, and step 5 takes over what the log does not hold.
    """
    served, searcher = _open_served(root, index_id)  # Step 1
    log = ask_log(access.kafka, served)  # Step 2
    settings = EncoderSettings(model=flags["model"], pretrained=flags["pretrained"])
    encoder = _load(settings, served)  # Step 3
    forecast = build_forecast(searcher, encoder, log.ranges, _free_bytes(root))
    retained = access.find_retained(log, served, searcher)
    kept = list(find_kept(searcher, retained))
    _tell(forecast, kept)
    fields = {"index": index_id, **forecast.as_json(), "not_in_log": Counter(one.source for one in kept)}
    if flags["dry_run"]:
        print_summary({**fields, "described": False}, "nothing is written", as_json=as_json)
        return
    about = _describe(log.topic, flags["group_id"] or f"cliptide-{index_id}", encoder)
    index = IndexDirectory.create(root, index_id, about)  # Step 4
    record_model(index.store, RecordedModel.of(settings))
    seeding = Seeding(index, encoder, fetch_by_http if flags["fetch"] else None)
    seeding.write(searcher, retained)  # Step 5
    _tell_lost(seeding, flags["lost_file"])
    fields |= {"described": True, "taken": seeding.num_taken, "lost": len(seeding.lost)}
    way_on = f"CLIPTIDE_INDEX__ID={index_id} CLIPTIDE_ENCODER__MODEL={settings.model} cliptide consume"
    print_summary(fields, f"{index_id} is described; now: {way_on}", as_json=as_json)


def _free_bytes(root: IndexRoot) -> int | None:
    return shutil.disk_usage(root).free if isinstance(root, Path) else None


def _open_served(root: IndexRoot, index_id: str) -> tuple[IndexDirectory, Searcher]:
    reader = IndexReader(root)
    reader.reload()
    if reader.index is None or reader.searcher is None:
        raise IndexMissing(f"no index in {root} yet")
    if reader.index.index_id == index_id:
        raise IndexRefused(f"the index {index_id} serves: give the new one another --index-id")
    return reader.index, reader.searcher


def _load(settings: EncoderSettings, served: IndexDirectory) -> Encoder:
    from clip_index.encoder.open_clip import load_encoder  # here: importing torch takes seconds

    tell(f"loading {settings.model}, and encoding some contents to measure the time …")
    encoder = load_encoder(settings)
    if encoder.fingerprint == served.description.fingerprint:
        tell(f"this is the model of {served.index_id}: the new index will answer as that one does")
    return encoder


def _describe(topic: TopicDescription, group_id: str, encoder: Encoder) -> IndexDescription:
    """Describe the index as its consumer will, so that the consumer finds its own description."""
    return IndexDescription(
        topic=topic.name,
        topic_id=topic.topic_id,
        num_partitions=topic.num_partitions,
        group_id=group_id,
        fingerprint=encoder.fingerprint,
    )


def _tell(forecast: Forecast, kept: Sequence[KeptContent]) -> None:
    for line in forecast.lines():
        tell(line)
    if forecast.may_lack_room:
        tell("that may not fit on the disk: make room before the consumer begins")
    sources = Counter(one.source for one in kept)
    if not kept:
        tell("the log still holds every live content")
        return
    tell(f"the log does not hold {counted(len(kept), 'live content')} any more (retention or compaction):")
    for source, sentence in _WAYS.items():
        if sources[source]:
            tell(f"  {sources[source]:,} {sentence}")


_WAYS: Mapping[Source, str] = {
    "text": "are texts, which are taken from the served index",
    "link": "are pictures that were fetched: --fetch takes them from their links if they are still the same",
    "lost": "are lost to the new index: upload them again, or keep the served index",
}


def _tell_lost(seeding: Seeding, file: Path | None) -> None:
    """Name the first contents that could not be taken, and write all of them to the file."""
    for one, reason in seeding.lost[:_NUM_NAMED]:
        tell(f"lost: {one.content.content_id}: {reason}")
    if len(seeding.lost) > _NUM_NAMED and file is None:
        tell(f"and {len(seeding.lost) - _NUM_NAMED:,} more: --lost writes them to a file")
    if file is not None:
        lines = [
            json.dumps({"content_id": one.content.content_id, "shard": one.shard, "reason": reason})
            for one, reason in seeding.lost
        ]
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _watch(index: IndexDirectory, served: IndexDirectory, *, as_json: bool) -> None:
    refuse_other_log(index, served)
    num_records = BuildWatch(index, served).run()
    fields = {"index": index.index_id, "records": num_records, "caught_up_with": served.index_id}
    print_summary(fields, f"now: cliptide switch {index.index_id}", as_json=as_json)
