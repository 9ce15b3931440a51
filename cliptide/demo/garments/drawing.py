"""Draws product pictures: a garment in soft light, on a plain background."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cliptide.demo.garments.accessories import build_accessories
from cliptide.demo.garments.cloth import cloth_colour, contrast_colour, trim_colour, woven
from cliptide.demo.garments.clothes import build_clothes
from cliptide.demo.garments.combinations import Combination
from cliptide.demo.garments.headwear_and_footwear import build_headwear_and_footwear
from cliptide.demo.garments.outlines import Outline, Silhouette, Stroke, rounded
from cliptide.demo.garments.placement import Field, Placement, random_placement

DEFAULT_SIZE = 320
_SUPERSAMPLING = 3
_CORNER_RADIUS = 0.09


class PictureDrawer:
    """Draws any combination. The same seed and size give the same picture."""

    def __init__(self, silhouettes: Mapping[str, Silhouette] | None = None) -> None:
        self._silhouettes = build_silhouettes() if silhouettes is None else silhouettes

    def draw(self, combination: Combination, *, seed: int, size: int = DEFAULT_SIZE) -> Image.Image:
        """Draw an RGB picture of `size` × `size` pixels."""
        rng = np.random.default_rng(seed)
        placement = random_placement(rng)
        silhouette = self._silhouettes[combination.garment]
        colour = cloth_colour(combination.colour, rng)
        body, trim, seams = _masks(silhouette, placement, size)
        whole = np.maximum(body, trim)
        planes = _background(rng, size)
        planes *= shadow(whole, rng)
        _paint(planes, colour, body)
        if combination.pattern != "plain":
            share = woven(combination.pattern, placement, rng, size)
            _paint(planes, contrast_colour(colour), body * share)
        _paint(planes, trim_colour(colour), trim)
        planes *= 1 - np.float32(0.41) * seams * whole
        planes *= _light(whole, placement, rng)
        return _image(planes)

    def jpeg_bytes(self, combination: Combination, *, seed: int, size: int = DEFAULT_SIZE) -> bytes:
        """Draw the picture as a JPEG file."""
        buffer = io.BytesIO()
        self.draw(combination, seed=seed, size=size).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


def build_silhouettes() -> dict[str, Silhouette]:
    """Return the silhouettes of all garments, by the garment's name."""
    return {**build_clothes(), **build_headwear_and_footwear(), **build_accessories()}


def _masks(silhouette: Silhouette, placement: Placement, size: int) -> tuple[Field, Field, Field]:
    """Return the anti-aliased coverage of body, trim and seams."""
    canvas = size * _SUPERSAMPLING
    images = [Image.new("L", (canvas, canvas)) for _ in range(3)]
    body, trim, seams = (ImageDraw.Draw(image) for image in images)
    _fill(body, silhouette.body, placement, canvas, 255)
    _fill(body, silhouette.holes, placement, canvas, 0)
    _fill(trim, silhouette.trim, placement, canvas, 255)
    _stroke(trim, silhouette.handles, placement, canvas)
    _stroke(seams, silhouette.seams, placement, canvas)
    whole_body, whole_trim, fine_seams = (_field(image.reduce(_SUPERSAMPLING)) for image in images)
    return whole_body, whole_trim, fine_seams


def _field(image: Image.Image) -> Field:
    field: Field = np.asarray(image).astype(np.float32) / np.float32(255)
    return field


def _fill(
    draw: ImageDraw.ImageDraw, outlines: tuple[Outline, ...], placement: Placement, canvas: int, value: int
) -> None:
    for outline in outlines:
        draw.polygon(placement.to_pixels(rounded(outline, _CORNER_RADIUS), canvas), fill=value)


def _stroke(
    draw: ImageDraw.ImageDraw, strokes: tuple[Stroke, ...], placement: Placement, canvas: int
) -> None:
    for stroke in strokes:
        width = max(1, round(stroke.width * placement.scale_y * canvas / 2))
        draw.line(placement.to_pixels(stroke.points, canvas), fill=255, width=width, joint="curve")


def _paint(planes: Field, colour: Field, coverage: Field) -> None:
    """Paint a colour (3,) over planes (3, height, width), in place."""
    for plane, tone in zip(planes, colour, strict=True):
        plane += (tone - plane) * coverage


def _image(planes: Field) -> Image.Image:
    channels = (np.clip(planes, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))


def _background(rng: np.random.Generator, size: int) -> Field:
    """Return planes (3, size, size) of a pale surface: a gradient, or a wall above a floor."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.0, 0.16), rng.uniform(0.64, 0.95)
    tone = np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32)
    corners = rng.uniform(-0.1, 0.1, (2, 2)).astype(np.float32)
    light = Image.fromarray(corners).resize((size, size), Image.Resampling.BICUBIC)
    surface: Field = tone[:, None, None] + np.asarray(light).astype(np.float32)
    if rng.uniform() < 0.35:
        surface[:, int(size * rng.uniform(0.6, 0.85)) :] -= np.float32(rng.uniform(0.04, 0.14))
    return surface


def _blurred(mask: Field, radius: float) -> Image.Image:
    image = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(radius))
    return image.filter(ImageFilter.BoxBlur(radius))


def shadow(whole: Field, rng: np.random.Generator) -> Field:
    """Return the light (height, width) that a soft shadow leaves. It falls down and to one side."""
    size = whole.shape[0]
    soft = _blurred(whole, size * 0.02)
    down, aside = int(size * 0.03), int(size * rng.uniform(-0.03, 0.03))
    moved = soft.transform(soft.size, Image.Transform.AFFINE, (1, 0, -aside, 0, 1, -down))
    light: Field = 1 - np.float32(0.45) * _field(moved)
    return light


def _light(whole: Field, placement: Placement, rng: np.random.Generator) -> Field:
    """Return the light (height, width) on a garment: from one side, with soft folds and darker edges."""
    x, y = placement.garment_grid(whole.shape[0])
    slope, bend = rng.uniform(-0.1, 0.1), rng.uniform(3, 6)
    folds = np.sin(x * np.float32(bend) + y * np.float32(rng.uniform(-2, 2)) + np.float32(rng.uniform(0, 6)))
    edges = _field(_blurred(whole, whole.shape[0] * 0.025))
    light = np.float32(0.84) + x * np.float32(slope) + folds * np.float32(0.05) + edges * np.float32(0.17)
    on_garment: Field = 1 + (light - 1) * whole
    return on_garment
