"""Where the files of a served generation are on this machine, each verified once in this process.

What the next generation shares with the served one is not looked at again. A local copy that turns out to be
damaged while it is served is fetched and opened anew by the next reload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clip_index.generations.manifest import Manifest, SegmentEntry, TombstonesFile, tombstones_name
from clip_index.storage.file_digest import FileDigest, FileVerifier, check_size
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file


@dataclass(frozen=True, slots=True)
class Located:
    """A segment or a file of tombstones that has been verified, and where its files are on this machine."""

    named: SegmentEntry | TombstonesFile
    files: Mapping[Path, FileDigest]


class LocatedFiles:
    """Belongs to the reader of one shard. Other threads may call `served` and `mend`."""

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._verifier = FileVerifier()
        self._located: Mapping[str, Located] = {}
        self.damaged_copies: set[Path] = set()
        """Served local copies that are damaged. The next reload replaces them."""

    def served(self) -> dict[Path, FileDigest]:
        """Return the files of the served generation."""
        return {path: digest for one in self._located.values() for path, digest in one.files.items()}

    def mend(self, path: Path) -> bool:
        """Give up a served local copy that is damaged; False if it is the only one."""
        served = self.served()
        if path not in served or not self._store.forget_copy(path):
            return False
        self.damaged_copies.add(path)
        return True

    def begin_mending(self) -> frozenset[Path]:
        """Have the copies verified again that are damaged now; return them. Another thread may add some."""
        mended = frozenset(self.damaged_copies)
        if mended:
            self._verifier.retain(self.served().keys() - mended)
        return mended

    def locate_verified(
        self, manifest: Manifest, before_each: Callable[[], object] = lambda: None
    ) -> dict[str, Located]:
        """Return where the files of a generation are. What the served one has already is not touched.

        `before_each` is called before a segment is verified.
        """
        located = {}
        for entry in manifest.segments:
            name = entry.stored_name
            known = self._find_known(name, entry)
            if known is None:
                before_each()
                known = Located(entry, self.verify(entry.files_needed))
            located[name] = known
        for dead in filter(None, (entry.file for entry in manifest.tombstones.values())):
            name = tombstones_name(dead.file_name)
            known = self._find_known(name, dead)
            located[name] = known or Located(dead, self.verify([(name, dead.digest)]))
        return located

    def serve(self, located: Mapping[str, Located], mended: frozenset[Path]) -> None:
        """Note that these files are served from now on, and that the `mended` copies were replaced."""
        has_lost_some = bool(self._located.keys() - located.keys())
        self._located = located
        if has_lost_some:
            self._verifier.retain(set(self.served()))
        self.damaged_copies.difference_update(mended)

    def verify(self, files: Iterable[tuple[str, FileDigest]]) -> dict[Path, FileDigest]:
        """Return where the files are, each verified once in this process."""
        verify = self._verifier.verify
        return {verified_file(self._store, name, digest, verify): digest for name, digest in files}

    def has_damaged_copy(self, stored_name: str) -> bool:
        """Whether a damaged copy of a segment's file is mapped, so that it must be opened anew."""
        if not self.damaged_copies:
            return False
        located = self._located.get(stored_name)
        return located is not None and not self.damaged_copies.isdisjoint(located.files)

    def check_sizes(self, entry: SegmentEntry) -> None:
        """Raise `DamagedFile` if a file was cut short since it was verified."""
        for name, digest in entry.files_needed:
            check_size(self._store.local_file(name, digest), digest)

    def _find_known(self, name: str, named: SegmentEntry | TombstonesFile) -> Located | None:
        known = None if self.has_damaged_copy(name) else self._located.get(name)
        return known if known is not None and (known.named is named or known.named == named) else None
