"""The demo's catalogue as a gallery: its notes ask for pictures, and its pictures for notes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue
from cliptide.demo.run import DemoOptions
from cliptide.demo.small_clip.model import write_model_directory
from cliptide.pairs.gallery import Gallery
from cliptide.pairs.pair import Pair, metadata_texts


def build_demo_gallery(num_images: int | None = None, num_texts: int | None = None) -> Gallery:
    """Build the catalogue that the demo publishes by default. Notes and pictures share combinations."""
    default = DemoOptions()
    num_images = default.num_images if num_images is None else num_images
    num_texts = default.num_texts if num_texts is None else num_texts
    return gallery_of_catalogue(build_catalogue(num_images, num_texts, default.seed))


def gallery_of_catalogue(catalogue: Iterable[CatalogueContent]) -> Gallery:
    gallery = Gallery()
    for content in catalogue:
        labels, metadata = [f"group {content.combination}"], metadata_texts(content.metadata)
        if content.modality == "image":
            digest = hashlib.sha256(content.content_id.encode()).hexdigest()
            gallery.add_picture(_pair(content, metadata), digest, labels)
        else:
            gallery.add_caption(" ".join(content.text.split()), labels, metadata)
    pictures = gallery.pictures
    for number in gallery.image_to_text().asked:
        pictures[number].num_pairs = 1
    return gallery


def _pair(content: CatalogueContent, metadata: dict[str, tuple[str, ...]]) -> Pair:
    return Pair(content.content_id, content.content_id, content.image_bytes, content.text, metadata)


def write_demo_model(folder: Path) -> Path:
    return write_model_directory(folder)
