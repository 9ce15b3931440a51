"""Colours as a viewer shows them: the picture's own colour space converted to sRGB.

Where the colour space comes from, the first that is there: PNG's `cICP`, an ICC profile, the code points
in the `colr` box of AVIF and HEIC, PNG's `gAMA` and `cHRM`. A profile that is broken or does not fit the
pixels is ignored, as viewers do. The curves of HDR (PQ and HLG) have profiles of their own (`image_hdr`).
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from clip_index.encoder.image_hdr import HLG, PQ, build_hdr_profile

_MAX_PROFILE_BYTES = 8 * 2**20  # of a press: up to 4 MB
_MODES = {b"RGB ": ("RGB", "RGBA"), b"GRAY": ("L",), b"CMYK": ("CMYK",)}
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError, OverflowError, MemoryError)
_UNNOTICED = 3  # of 255: a profile that moves no colour by more is sRGB under another name

_SRGB_WHITE, _SRGB_PRIMARIES = (0.3127, 0.329), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {  # ITU-T H.273
    1: _SRGB_PRIMARIES,
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_GAMMAS = {1: 0.0, 4: 2.2, 5: 2.8, 6: 0.0, 8: 1.0, 13: 0.0, 14: 0.0, 15: 0.0}  # 0: the curve of sRGB
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def profile_of(image: Image.Image, data: bytes) -> bytes | None:
    """Return the picture's ICC profile, or one built from what its format says instead of a profile."""
    if (overruling := _profile_of_points(_code_points_of_png(image, data))) is not None:
        return overruling
    profile = image.info.get("icc_profile")
    if profile:
        return profile if 128 < len(profile) <= _MAX_PROFILE_BYTES else None
    if (stated := _profile_of_points(_code_points_of_boxes(image, data))) is not None:
        return stated
    return None if "srgb" in image.info else _profile_of_png(image)


def is_of_ink(profile: bytes | None, mode: str) -> bool:
    """Whether a profile says how four inks look; without one they are converted by a formula."""
    return profile is not None and mode == "CMYK" and _transform(profile, mode) is not None


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the picture in sRGB: L and RGB become RGB, RGBA stays, and CMYK with a profile becomes RGB."""
    if profile is None:
        return image
    space = profile[16:20]
    if image.mode == "L" and space == b"RGB ":
        image = image.convert("RGB")
    if image.mode == "RGBA" and space == b"GRAY":
        return _grey_with_alpha(image, profile)
    if image.mode not in _MODES.get(space, ()) or (transform := _transform(profile, image.mode)) is None:
        return image
    converted: Image.Image | None = transform.apply(image)
    return image if converted is None else converted


def _grey_with_alpha(image: Image.Image, profile: bytes) -> Image.Image:
    red, green, blue, alpha = image.split()
    if not red.tobytes() == green.tobytes() == blue.tobytes():
        return image
    converted = to_srgb(red, profile).convert("RGBA")
    converted.putalpha(alpha)
    return converted


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Convert CIE L*a*b*, which scanners and presses write into TIFF files."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return image.convert("RGB") if converted is None else converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None if the profile is broken, or if it is sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        output = "RGBA" if mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, output)
        return transform if mode == "CMYK" or _changes_colors(transform, mode, output) else None
    except _PROFILE_ERRORS:
        return None


def _changes_colors(transform: ImageCms.ImageCmsTransform, mode: str, output: str) -> bool:
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, len(steps), 3)
    colors = Image.fromarray(grid).convert(mode)
    converted = transform.apply(colors)
    before, after = (np.asarray(each.convert(output)).astype(int) for each in (colors, converted))
    return bool(np.abs(before - after).max() > _UNNOTICED)


def _profile_of_points(points: tuple[int, int] | None) -> bytes | None:
    """Return the profile of (primaries, transfer) in the code points of H.273; None if they name none."""
    if points is None or points[0] not in _PRIMARIES:
        return None
    if points[1] in (PQ, HLG):
        of_picture, of_srgb = (_to_d50(_SRGB_WHITE, _PRIMARIES[name]) for name in (points[0], 1))
        return build_hdr_profile(points[1], of_picture.tobytes(), of_srgb.tobytes())
    if points[1] not in _GAMMAS:
        return None
    return build_profile(_SRGB_WHITE, _PRIMARIES[points[0]], _GAMMAS[points[1]])


def _code_points_of_png(image: Image.Image, data: bytes) -> tuple[int, int] | None:
    """Return what overrules a profile: a PNG may have both, so that older viewers see some colours."""
    if image.format == "PNG" and (at := data.find(b"\0\0\0\x04cICP", 0, 2**16)) > 0:
        return data[at + 8], data[at + 9]
    return None


def _code_points_of_boxes(image: Image.Image, data: bytes) -> tuple[int, int] | None:
    """Return what AVIF and HEIC state; beside a profile it only says how the pixels are coded."""
    if image.format == "AVIF" and (at := data.find(b"colrnclx", 0, 2**16)) > 0:
        return tuple(struct.unpack_from(">HH", data, at + 8))
    nclx = image.info.get("nclx_profile")  # of pillow-heif
    return (nclx["color_primaries"], nclx["transfer_characteristics"]) if isinstance(nclx, dict) else None


def _profile_of_png(image: Image.Image) -> bytes | None:
    gamma, chromaticity = image.info.get("gamma"), image.info.get("chromaticity")
    if image.format != "PNG" or (gamma is None and chromaticity is None):
        return None
    if gamma is not None and not 0.05 < gamma < 20:
        return None
    values = _SRGB_WHITE + _SRGB_PRIMARIES if chromaticity is None else tuple(chromaticity)
    is_like_srgb = np.allclose(values, _SRGB_WHITE + _SRGB_PRIMARIES, atol=0.01)
    if is_like_srgb and (gamma is None or 0.43 < gamma < 0.48):
        return None
    try:
        return build_profile(values[:2], values[2:], 0.0 if gamma is None else 1 / gamma)
    except (ArithmeticError, np.linalg.LinAlgError, struct.error, ValueError):
        return None


@lru_cache(maxsize=16)
def build_profile(white: tuple[float, ...], primaries: tuple[float, ...], gamma: float) -> bytes:
    """Return a minimal ICC profile of these chromaticities (x, y) and this exponent; 0 means sRGB's curve."""
    matrix = _to_d50(white, primaries)
    tags = [(b"wtpt", _xyz(_D50))]
    tags += [(name, _xyz(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)]
    tags += [(name, _curve(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC")]
    offset, table, bodies = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags:
        table += struct.pack(">4sII", name, offset + len(bodies), len(body))
        bodies += body
    header = struct.pack(">I4xI4s4s4s", offset + len(bodies), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">12x4s28x", b"acsp") + _s15(_D50)
    return header.ljust(128, b"\0") + table + bodies


def _to_d50(white: tuple[float, ...], primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the columns that red, green and blue have in XYZ, adapted to D50 by Bradford's matrix."""
    whole = _xyz_of(*white)
    columns = np.stack([_xyz_of(*primaries[at : at + 2]) for at in (0, 2, 4)], axis=1)
    matrix = columns * np.linalg.solve(columns, whole)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ whole)
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    if not np.isfinite(adapted).all():
        raise ValueError("chromaticities that no screen has")
    return adapted


def _xyz_of(x: float, y: float) -> NDArray[np.float64]:
    if y <= 0:
        raise ValueError("a chromaticity without light")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _s15(values)


def _s15(values: NDArray[np.float64]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _curve(gamma: float) -> bytes:
    """Return a parametric curve: a plain exponent, or the one of sRGB with its straight foot."""
    if gamma:
        return struct.pack(">4s4xHxxi", b"para", 0, round(gamma * 65536))
    parameters = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return struct.pack(">4s4xHxx5i", b"para", 3, *(round(value * 65536) for value in parameters))
