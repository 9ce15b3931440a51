"""What is ranked: the pictures and the captions of pairs, and which of them are right for each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cliptide.pairs.pair import Pair


@dataclass(slots=True)
class GalleryItem:
    """A picture or a caption. Two items are right for each other if they share a label.

    `key` is a picture's content id or a caption's text. `values` holds its metadata, for slices. `num_pairs`
    counts the pairs of a picture.
    """

    key: str
    title: str
    read: Callable[[], bytes] | None = None
    labels: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)
    num_pairs: int = 0

    def add(self, labels: Iterable[str], metadata: Mapping[str, Sequence[str]]) -> None:
        self.labels.update(labels)
        for name, values in metadata.items():
            self.values.setdefault(name, set()).update(values)


def unknown_key(wanted: Iterable[str], known: Collection[str]) -> str | None:
    """Say which of the metadata keys that are asked for no pair has; None if there is no such key."""
    missing = next((key for key in wanted if key not in known), None)
    if missing is None:
        return None
    there = f"there are {', '.join(sorted(known))}" if known else "the pairs have no metadata"
    return f"no pair has the metadata key {missing}: {there}"


class Gallery:
    """Pictures and captions, each once. Without `group_by`, the label of a pair is its caption.

    With it, the pair's values of that metadata key are its labels, so that every picture of a product is
    right for every caption of the product.
    """

    def __init__(self, group_by: str | None = None) -> None:
        self._group_by = group_by
        self._pictures: dict[str, GalleryItem] = {}
        self._captions: dict[str, GalleryItem] = {}
        self._texts: Collection[str] | None = None

    def has_picture(self, digest: str) -> bool:
        return digest in self._pictures

    @property
    def pictures(self) -> list[GalleryItem]:
        return list(self._pictures.values())

    @property
    def captions(self) -> list[GalleryItem]:
        """The captions that ask for pictures."""
        return list(self._captions.values())

    @property
    def texts(self) -> list[GalleryItem]:
        """The captions that a picture can find: all of them, unless `keep` has left some out."""
        return [item for item in self.captions if self._texts is None or item.key in self._texts]

    @property
    def num_pairs(self) -> int:
        return sum(item.num_pairs for item in self.pictures)

    @property
    def metadata_keys(self) -> set[str]:
        return {key for item in (*self.pictures, *self.captions) for key in item.values}

    @property
    def is_trivial(self) -> bool:
        """Whether every answer is right, so that every model is perfect."""
        return self.text_to_image().is_trivial and self.image_to_text().is_trivial

    def keep(self, *, pictures: Collection[str], texts: Collection[str]) -> None:
        """Keep only what an index holds: pictures by their content ids, captions as answers by their text."""
        self._pictures = {digest: item for digest, item in self._pictures.items() if item.key in pictures}
        self._texts = texts

    def add(self, pair: Pair, digest: str) -> None:
        """Add a pair. `digest` identifies its picture."""
        caption = " ".join(pair.caption.split())
        labels = self._labels(pair, caption)
        self.add_picture(pair, digest, labels).num_pairs += 1
        self.add_caption(caption, labels, pair.metadata)

    def add_picture(self, pair: Pair, digest: str, labels: Iterable[str]) -> GalleryItem:
        new = GalleryItem(pair.content_id, pair.label, pair.read)
        item = self._pictures.setdefault(digest, new)
        item.add(labels, pair.metadata)
        return item

    def add_caption(self, text: str, labels: Iterable[str], metadata: Mapping[str, Sequence[str]]) -> None:
        self._captions.setdefault(text, GalleryItem(text, text)).add(labels, metadata)

    def _labels(self, pair: Pair, caption: str) -> list[str]:
        if self._group_by is None:
            return [f"caption {caption}"]
        return [f"group {value}" for value in pair.metadata.get(self._group_by, ())] or [f"caption {caption}"]

    def text_to_image(self) -> RightAnswers:
        return RightAnswers(self.captions, self.pictures)

    def image_to_text(self) -> RightAnswers:
        return RightAnswers(self.pictures, self.texts)


@dataclass(frozen=True)
class RightAnswers:
    """Which of the targets are right for each query. A query without a right answer is not asked."""

    queries: Sequence[GalleryItem]
    targets: Sequence[GalleryItem]

    @cached_property
    def asked(self) -> list[int]:
        """The positions of the queries that have a right answer."""
        return [number for number in range(len(self.queries)) if self.of(number)]

    @cached_property
    def _by_label(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for number, target in enumerate(self.targets):
            for label in target.labels:
                found[label].append(number)
        return found

    @property
    def is_trivial(self) -> bool:
        """Whether each target is right for each query."""
        return all(len(self.of(number)) == len(self.targets) for number in self.asked)

    def of(self, query: int) -> set[int]:
        """Return the positions of the right targets."""
        return {n for label in self.queries[query].labels for n in self._by_label.get(label, ())}
