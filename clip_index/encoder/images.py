"""Pictures: bytes in, small RGB arrays out. Only this module and its neighbours `image_*` import Pillow.

The rules, which `docs/pictures.md` tells users:

- **What is a picture**: every still format of browsers, phones and scanners that Pillow reads. The
  bytes decide, never a name (`image_formats`).
- **What may be missing**: what is not pixels never decides. Of the pixels, 4 % may be missing
  (`image_repair`).
- **Whose orientation**: EXIF's, AVIF's and HEIC's own, and TIFF's tag. XMP is ignored, as browsers do.
- **Which colours**: those that a viewer shows (`image_colors`). The profile is applied after resizing,
  because that is cheaper. 16-bit pictures keep their high bytes.
- **Which frame**: the first that shows something, of the first thirty.
- **Which part**: where the model sees a square, the one in the middle. A wide or tall picture has further
  crops (`picture_crops`), except those that are blank.
- **Which background**: white, or black where the picture would vanish on white.
- **What it may cost**: the limits follow what decoding costs (`image_headers`).

JPEGs are decoded at the smallest DCT scale that is not below the wanted size, and resampled from there
(`image_resampling`). The pixels differ a little from those of a full decode, and the embeddings hardly at
all (`benchmarks/decode.py` measures both).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageStat
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from clip_index.encoder.image_colors import is_of_ink, lab_to_srgb, profile_of, to_srgb
from clip_index.encoder.image_headers import ImageLimits, check_size, num_halvings, open_image
from clip_index.encoder.image_repair import DECODE_ERRORS, open_damaged
from clip_index.encoder.image_resampling import (
    Extent,
    Interpolation,
    Size,
    Window,
    resample,
    resample_rgb,
)
from clip_index.encoder.picture_crops import Cropping
from clip_index.errors import BadContent

ResizeMode: TypeAlias = Literal["shortest", "longest", "squash"]
Result = TypeVar("Result")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAX_FRAMES = 30  # of an animation that begins blank: about a second
_PHOTOMETRIC, _WHITE_IS_ZERO, _SAMPLE_FORMAT = 262, 0, 339  # tags of TIFF
_SAID_OF_UNREAD_KINDS = ("unknown pixel mode", "unsupported bmp bitfields")  # by Pillow
_BLANK = 12  # of 255: the most that the pixels of a blank frame differ
_FAINT = 8.0  # of 255: a picture whose pixels deviate less from their mean cannot be made out
_SPARE = 4  # times the wanted size is a JPEG 2000 picture decoded, because halving shifts it a little


@dataclass(frozen=True, slots=True)
class Resizing:
    """How a picture becomes the model's input: the evaluation transform of open_clip.

    `shortest` scales the shorter side to the target and crops the centre, `longest` scales the
    longer side and pads with `fill`, `squash` ignores the aspect ratio.
    """

    width: int
    height: int
    mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    fill: int = 0

    def scaled_size(self, width: int, height: int) -> Size:
        """Return the size of the whole picture after scaling, before it is cropped or padded."""
        if self.mode == "squash":
            return self.width, self.height
        if self.mode == "shortest" and self.width == self.height:
            # torchvision's Resize rounds the longer side down, open_clip's own classes round to nearest
            short = min(width, height)
            return self.width * width // short, self.width * height // short
        pick = max if self.mode == "longest" else min
        ratio = pick(width / self.width, height / self.height)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def num_targets(self, width: int, height: int) -> float:
        """Return how many times the target fits into the picture's longer side; 1 if nothing is cropped."""
        if self.mode != "shortest":
            return 1.0
        ratios = width / self.width, height / self.height
        return max(ratios) / min(ratios)


def read_pixels(data: bytes, resizing: Resizing, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode a picture to uint8 RGB of shape (resizing.height, resizing.width, 3): the crop in the middle.

    Raises BadContent: `not_an_image`, `unsupported_image`, `image_too_large`,
    `truncated_image` or `damaged_image`.
    """
    return read_crops(data, resizing, limits, Cropping())[0]


def read_crops(
    data: bytes, resizing: Resizing, limits: ImageLimits, cropping: Cropping
) -> list[NDArray[np.uint8]]:
    """Decode a picture once, to one crop or more, the middle one first. Raises BadContent, as `read_pixels`.

    Blank crops beside the middle one are left out, because they would be near every blank picture.
    """

    def model_input(picture: _Picture) -> list[NDArray[np.uint8]]:
        scaled = resizing.scaled_size(*picture.upright_size)
        shifts = cropping.shifts(resizing.num_targets(*picture.upright_size))
        image, extent = picture.load(scaled)
        middle, *others = (
            _fit(image, extent, scaled, resizing, picture.profile, shift=shift) for shift in shifts
        )
        return [middle, *(other for other in others if not _is_flat(Image.fromarray(other)))]

    return _read(data, limits, model_input)


def make_thumbnail(data: bytes, side: int, limits: ImageLimits) -> bytes:
    """Return a WebP whose longer side is at most `side` pixels; a smaller picture keeps its size.

    Raises BadContent, as `read_pixels` does.
    """

    def shrunk(picture: _Picture) -> Image.Image:
        width, height = picture.upright_size
        ratio = max(1.0, max(width, height) / side)
        size = max(1, round(width / ratio)), max(1, round(height / ratio))
        image, extent = picture.load(size)
        return _shown(resample(image, extent, Window.whole(size), "bicubic"), picture.profile)

    output = io.BytesIO()
    _read(data, limits, shrunk).save(output, "WEBP", quality=80, method=2)
    return output.getvalue()


def _read(data: bytes, limits: ImageLimits, use: Callable[[_Picture], Result]) -> Result:
    """Use the picture in a file as it is; if that fails, as `open_damaged` mends it, which is slower."""
    with _decoding_errors_as_bad_content():
        try:
            return use(_Picture.of(open_image(data, limits), data, limits))
        except DECODE_ERRORS as error:
            try:
                return use(_Picture.of(open_damaged(data, limits), data, limits))
            except DECODE_ERRORS:
                raise error from None  # it says more than what became of the mended file


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture whose header is read. A JPEG (or JPEG 2000) is not decoded yet, one of another format is."""

    image: Image.Image
    orientation: int
    profile: bytes | None
    num_halvings: int = 0

    @classmethod
    def of(cls, image: ImageFile.ImageFile, data: bytes, limits: ImageLimits) -> _Picture:
        image.info.pop("xmp", None)  # Pillow would take an orientation from it
        if isinstance(image, JpegImageFile):  # decoded when its scale is known
            return cls(image, _orientation(image), profile_of(image, data))
        if isinstance(image, Jpeg2KImageFile):
            return cls(image, 1, profile_of(image, data), num_halvings(data))
        is_animated, profile = getattr(image, "is_animated", False), profile_of(image, data)
        image.load()  # EXIF may stand behind the pixels, a profile may not
        orientation = _orientation(image)
        shown = _first_that_shows(image, limits) if is_animated else image
        return cls(_as_its_tags_say(shown), orientation, profile)

    @property
    def is_turned(self) -> bool:
        return self.orientation >= 5

    @property
    def upright_size(self) -> Size:
        width, height = self.image.size
        return (height, width) if self.is_turned else (width, height)

    def load(self, wanted: Size) -> tuple[Image.Image, Extent]:
        """Decode the picture upright, at `wanted` pixels or more; return it in a plain mode, and its extent.

        The extent is the size of the picture inside the returned image. A JPEG decoded at 1/8 of its
        size may have a fractional extent, because its image is padded to whole pixels.
        """
        image = self.image
        drafted = image.draft(None, wanted[::-1] if self.is_turned else wanted)
        if isinstance(image, Jpeg2KImageFile) and image.tile:
            ratio = min(image.width / wanted[0], image.height / wanted[1])
            image.reduce = min(self.num_halvings, int(math.log2(max(1.0, ratio / _SPARE))))
        image.load()
        width, height = image.size if drafted is None else drafted[1][2:]
        turn = _TURNS.get(self.orientation)
        upright = _plain_mode(image if turn is None else image.transpose(turn), self.profile)
        return upright, (height, width) if self.is_turned else (width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; unreadable EXIF data counts as upright. Pillow turns a TIFF by itself.

    Not `getexif`, which takes an orientation from XMP and from text too. Editors leave it behind
    after they have turned the pixels, and no browser obeys it.
    """
    raw = image.info.get("exif")
    if not isinstance(raw, bytes) or isinstance(image, TiffImageFile):
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        value = exif.get(ExifTags.Base.Orientation)
    except DECODE_ERRORS:
        return 1
    return value if value in _TURNS else 1


def _first_that_shows(image: ImageFile.ImageFile, limits: ImageLimits) -> Image.Image:
    """Return the first frame (or page) that is not blank; if there is none among the first, the first one."""
    if not _is_blank(image):
        return image
    first = image.copy()
    most = min(_MAX_FRAMES, limits.max_pixels // (image.width * image.height))
    for number in range(1, most):
        try:
            image.seek(number)
            check_size(image, limits)
            image.load()
        except DECODE_ERRORS:
            break
        if not _is_blank(image):
            return image
    return first


def _as_its_tags_say(image: Image.Image) -> Image.Image:
    """Return a TIFF of deep grey with black as its least number. Pillow obeys both tags for 8 bits only."""
    if not isinstance(image, TiffImageFile) or not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "I" and image.tag_v2.get(_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32).astype(np.float32)
    if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = (np.uint16(65_535) if values.dtype.itemsize == 2 else values.max()) - values
    return Image.fromarray(values)


def _is_blank(image: Image.Image) -> bool:
    return _is_flat(_on_background(_plain_mode(image, None)))


def _is_flat(shown: Image.Image) -> bool:
    return all(
        high - low <= _BLANK for low, high in zip(*np.reshape(shown.getextrema(), (-1, 2)).T, strict=True)
    )


def _plain_mode(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert the image to one of the modes L, RGB, RGBA, and CMYK where a profile says how inks look."""
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _eight_bits(np.asarray(image))
    if image.mode == "LAB":
        return lab_to_srgb(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    is_plain = image.mode in ("L", "RGB") or is_of_ink(profile, image.mode)
    return image if is_plain else image.convert("RGB")


def _eight_bits(values: NDArray[np.generic]) -> Image.Image:
    """Scale numbers from 0 (or less) to the greatest, because no such file says which one is white."""
    finite = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    low, high = min(0.0, float(finite.min())), float(finite.max())
    scaled = (finite - low) * (255 / (high - low)) if high > low else finite * 0
    return Image.fromarray(scaled.astype(np.uint8))


def _fit(
    image: Image.Image,
    extent: Extent,
    scaled: Size,
    resizing: Resizing,
    profile: bytes | None,
    *,
    shift: float,
) -> NDArray[np.uint8]:
    """Resample the part of the picture that the target shows; pad where the target is larger.

    `shift` 0.5 is the part in the middle, 0 the one at the left or top, 1 the one at the right or bottom.
    """
    target = resizing.width, resizing.height
    shown = min(scaled[0], target[0]), min(scaled[1], target[1])
    left, top = round((scaled[0] - shown[0]) * shift), round((scaled[1] - shown[1]) * shift)
    window = Window(scaled, (left, top), shown)
    small = _resampled(image, extent, window, resizing.interpolation, profile)
    if shown == target:
        return small
    padded = np.full((target[1], target[0], 3), resizing.fill, np.uint8)
    left, top = (target[0] - shown[0]) // 2, (target[1] - shown[1]) // 2
    padded[top : top + shown[1], left : left + shown[0]] = small
    return padded


def _resampled(
    image: Image.Image, extent: Extent, window: Window, interpolation: Interpolation, profile: bytes | None
) -> NDArray[np.uint8]:
    if image.mode != "RGB":
        return np.array(_shown(resample(image, extent, window, interpolation), profile))
    pixels = resample_rgb(image, extent, window, interpolation)
    return pixels if profile is None else np.array(to_srgb(Image.fromarray(pixels), profile))


def _shown(small: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a resized picture as a viewer shows it: in sRGB, on a background."""
    return _on_background(to_srgb(small, profile))


def _on_background(image: Image.Image) -> Image.Image:
    """Lay the picture on white; on black, if it cannot be made out on white and can on black."""
    if image.mode != "RGBA":
        return image if image.mode == "RGB" else image.convert("RGB")
    on_white = _laid_on("white", image)
    if _contrast(on_white) >= _FAINT:
        return on_white
    on_black = _laid_on("black", image)
    return on_black if _contrast(on_black) > _contrast(on_white) else on_white


def _laid_on(color: str, image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image).convert("RGB")


def _contrast(image: Image.Image) -> float:
    return float(max(ImageStat.Stat(image).stddev))


@contextmanager
def _decoding_errors_as_bad_content() -> Iterator[None]:
    """Turn Pillow's exceptions into BadContent; no other function does so."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadContent("image_too_large", str(error)) from error
    except DECODE_ERRORS as error:
        raise BadContent(_reason_of(error), str(error) or type(error).__name__) from error


def _reason_of(error: Exception) -> str:
    said = str(error).lower()
    if said.startswith(_SAID_OF_UNREAD_KINDS):
        return "unsupported_image"
    return "truncated_image" if isinstance(error, EOFError) or "truncated" in said else "damaged_image"
