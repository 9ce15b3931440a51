"""What of a gallery an index holds. The rest is left out and counted, because no service can find it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue
from cliptide.demo.run import DemoOptions
from cliptide.evaluation.answers import ServiceAnswers
from cliptide.evaluation.demo_gallery import gallery_of_catalogue
from cliptide.pairs.gallery import Gallery
from cliptide.pairs.reading import BadInput, described
from cliptide.searching.query_client import QueryClient

_IDS_OF_A_CALL = 250


def held_pictures(client: QueryClient, gallery: Gallery) -> set[str]:
    """Return the ids of the pictures that the index holds. Raises `BadInput` if there are none."""
    held = client.known_ids([item.key for item in gallery.pictures])
    if not held:
        raise BadInput(
            f"the index at {client.url} holds none of the {len(gallery.pictures):,} pictures (the first id "
            f"is {gallery.pictures[0].key}): publish the same source, or give the rows the content ids "
            "of the index"
        )
    return held


def served_demo(client: QueryClient) -> tuple[Gallery, set[str]]:
    """Return the catalogue of the demo behind a service, and the ids that its index holds.

    A demo of another size has other contents under the same ids. So owner and metadata are compared, and if
    none agree, the catalogue is built with as many contents as the index has ids of the demo. Raises
    `BadInput` if none agree then.
    """
    default = DemoOptions()
    found = _compared(client, default.num_images, default.num_texts)
    if not found[1]:
        found = _compared(client, _num_served(client, "image"), _num_served(client, "text"))
    if not found[1]:
        raise BadInput(
            f"the index at {client.url} does not hold the demo's catalogue. A demo with a --seed of its own "
            "publishes other contents, and one that is still publishing cannot be measured"
        )
    if not found[0].num_pairs:
        raise BadInput(
            f"the demo at {client.url} is too small: none of its {len(found[0].captions):,} texts describes "
            "one of its pictures. Start it with more of both (--num-images, --num-texts)"
        )
    return found


def leave_out(gallery: Gallery, held: set[str], answers: ServiceAnswers) -> Mapping[str, int]:
    """Leave out what the index does not hold, say how much that is, and return the numbers."""
    pictures, captions = gallery.pictures, gallery.captions
    gallery.keep(pictures=held, texts=answers.held_texts(captions))
    left_out = {
        "pictures": len(pictures) - len(gallery.pictures),
        "captions": len(captions) - len(gallery.texts),
    }
    totals = {"pictures": len(pictures), "captions": len(captions)}
    described(list(_in_words(left_out, totals)))
    return left_out


def _in_words(left_out: Mapping[str, int], totals: Mapping[str, int]) -> Iterator[str]:
    if number := left_out["pictures"]:
        yield f"left out: {number:,} of the {totals['pictures']:,} pictures; the index does not hold them"
    if number := left_out["captions"]:
        yield (
            f"left out of image to text: {number:,} of the {totals['captions']:,} captions; the index does "
            "not hold them as texts"
        )


def _compared(client: QueryClient, num_images: int, num_texts: int) -> tuple[Gallery, set[str]]:
    catalogue = build_catalogue(num_images, num_texts, DemoOptions().seed)
    known = client.known_contents([content.content_id for content in catalogue], ("metadata",))
    held = {content.content_id for content in catalogue if _is_same(content, known.get(content.content_id))}
    return gallery_of_catalogue(catalogue), held


def _is_same(content: CatalogueContent, hit: Mapping[str, Any] | None) -> bool:
    return hit is not None and (hit["owner_id"], hit["metadata"]) == (content.owner_id, content.metadata)


def _num_served(client: QueryClient, modality: str) -> int:
    """Return the greatest number in an id of the demo, plus one."""
    numbers = [-1]
    for first in count(step=_IDS_OF_A_CALL):
        names = {f"{modality}-{number:05d}": number for number in range(first, first + _IDS_OF_A_CALL)}
        known = client.known_ids(list(names))
        if not known:
            break
        numbers += [names[name] for name in known]
    return max(numbers) + 1
