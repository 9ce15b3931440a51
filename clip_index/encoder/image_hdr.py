"""Pictures of a high dynamic range (HDR) on a usual screen: a profile for the curves PQ and HLG.

These curves code light up to 10,000 or 1,000 candelas per square metre, where a usual screen shows white.
So the light is mapped to the range of the screen, as Chromium does. The greatest of a colour's three values
decides how much the colour is dimmed, and so its hue stays. The whole conversion is a table in the profile.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

PQ, HLG = 16, 18  # transfer characteristics of ITU-T H.273
_GRID = 33
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0  # ITU-R BT.2408
_HLG_SYSTEM_GAMMA = 1.2  # ITU-R BT.2100, for a peak of 1,000
# What Chromium 156 shows: light where 1 is the white of 203 nits, and the part of the screen's light for it.
_LIGHT = (0.0, 1.0, 1.36, 1.8, 2.42, 3.23, 4.31, _PEAK_NITS / _WHITE_NITS)
_SHOWN = (0.0, 0.5, 0.62, 0.716, 0.8, 0.888, 0.965, 1.0)
_D50 = np.array([0.9642, 1.0, 0.8249])


@lru_cache(maxsize=16)
def build_hdr_profile(transfer: int, to_d50: bytes, srgb_to_d50: bytes) -> bytes:
    """Return an ICC profile of a curve and of primaries.

    The matrices (3, 3) float64 are those from the picture's primaries and from sRGB's to XYZ under D50.
    """
    primaries, srgb = (np.frombuffer(matrix).reshape(3, 3) for matrix in (to_d50, srgb_to_d50))
    steps = np.linspace(0, 1, _GRID)
    coded = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    light = _light_of_pq(coded) if transfer == PQ else _light_of_hlg(coded, primaries[1])
    shown = _dimmed(light) @ (np.linalg.inv(srgb) @ primaries).T
    table = _coded_lab(np.clip(shown, 0, 1) @ srgb.T)
    return _with_table(_lut16(table))


def _light_of_pq(coded: Values) -> Values:
    """Return the light of SMPTE ST 2084, where 1 is white."""
    powered = coded ** (32 / 2523)
    fraction = np.maximum(powered - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * powered)
    return np.asarray(10_000 / _WHITE_NITS * fraction ** (16384 / 2610))


def _light_of_hlg(coded: Values, luminances: Values) -> Values:
    """Return the light of a screen with a peak of 1,000 nits, by ITU-R BT.2100."""
    bright = (np.exp((coded - 0.55991073) / 0.17883277) + 0.28466892) / 12
    scene = np.where(coded <= 0.5, coded**2 / 3, bright)
    luminance = np.maximum(scene @ luminances, 1e-12)[:, np.newaxis]
    return np.asarray(scene * luminance ** (_HLG_SYSTEM_GAMMA - 1) * _PEAK_NITS / _WHITE_NITS)


def _dimmed(light: Values) -> Values:
    greatest = np.maximum(light.max(axis=1, keepdims=True), 1e-12)
    return np.asarray(light * (np.interp(greatest, _LIGHT, _SHOWN) / greatest))


def _coded_lab(xyz: Values) -> Values:
    """Return CIE L*a*b* as the 16-bit numbers of ICC's `mft2`."""
    ratios = xyz / _D50
    f = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    lightness, a, b = 116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])
    return np.stack([lightness * 652.8, (a + 128) * 256, (b + 128) * 256], axis=1)


def _lut16(table: Values) -> bytes:
    identity = struct.pack(">6H", *(0, 0xFFFF) * 3)
    head = struct.pack(">4s4x3Bx9i2H", b"mft2", 3, 3, _GRID, *np.eye(3, dtype=int).ravel() * 65536, 2, 2)
    return head + identity + np.clip(np.round(table), 0, 0xFFFF).astype(">u2").tobytes() + identity


def _with_table(table: bytes) -> bytes:
    """Return a profile of version 2, because LittleCMS moves the black of tables in version 4."""
    directory = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    header = struct.pack(">I4xI4s4s4s", 144 + len(table), 0x02400000, b"mntr", b"RGB ", b"Lab ")
    header += struct.pack(">12x4s28x3i", b"acsp", *(round(value * 65536) for value in _D50))
    return header.ljust(128, b"\0") + directory + table
