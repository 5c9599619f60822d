"""ImageProcessor: a picture, however it comes, as the detector's network takes it. Needs Pillow for files only."""

import io
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.pipelines import Pipeline, make_pipeline

MAX_PIXELS = 89_478_485  # a gigabyte of floats; Pillow warns from there on
SMALLEST = 3  # pixels of a side that the network's first two layers leave something of


class BadImage(ValueError):
    """A picture that is not read; the message begins with its name."""


class LargeImage(BadImage):
    """A picture of more pixels than are allowed."""


@dataclass(frozen=True)
class ProcessedImage:
    """A picture as the network takes it.

    Args:
        pixels: float32[h, w, 3], blue, green and red in 0..255 less the means, resized.
        size: height and width of the picture itself, in pixels.
        scales: from the resized picture to the picture itself: down and across.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    scales: tuple[float, float]


class ImageProcessor:
    """Decodes and resizes pictures as a pipeline's program does.

    Files are turned as their EXIF says. Grey, palette and CMYK pictures become colours, transparency is dropped, of 16
    bits the upper 8 stay, and of an animation the first picture, all as in upstream's programs.

    Args:
        config: of the detector. Default: the published one's.
        pipeline: its name, or a `Pipeline`.
        max_pixels: more than these are refused before they are decoded, since small files can hold enormous pictures.

    Examples:
        >>> ImageProcessor(pipeline="caffe")("cat.jpg").pixels.shape
        (600, 800, 3)
    """

    def __init__(
        self,
        config: DetectorConfig | None = None,
        pipeline: str | Pipeline = "caffe",
        max_pixels: int = MAX_PIXELS,
    ):
        self.config = config or DetectorConfig()
        self.pipeline = pipeline if isinstance(pipeline, Pipeline) else make_pipeline(pipeline, self.config)
        self.max_pixels = max_pixels

    def __call__(self, image: Any, name: str | None = None) -> ProcessedImage:
        """A picture as the network takes it.

        Args:
            image: a path, the bytes of a file, a PIL image, or an array: uint8 or uint16, [h, w], [h, w, 1], or red,
                green, blue and perhaps alpha [h, w, 3 or 4].
            name: what messages call it. Default: its path, or what it is.

        Raises:
            FileNotFoundError: there is no such file.
            BadImage: it is no picture, is damaged, has too many pixels, or too few in one direction.
            TypeError: it is none of these.
        """
        name = name or name_of(image)
        colours = read_image(image, self.max_pixels, name)
        height, width = colours.shape[:2]
        new_height, new_width, scales = resized_size(height, width, self.pipeline)
        if min(new_height, new_width) < SMALLEST:
            raise BadImage(
                f"{name} is {width}x{height} pixels, too narrow: resized to {new_width}x{new_height} it is "
                f"less than {SMALLEST} pixels in one direction; crop it."
            )
        return ProcessedImage(self._resize(colours[:, :, ::-1], new_height, new_width, scales), (height, width), scales)

    def _resize(self, colours: np.ndarray, height: int, width: int, scales: tuple[float, float]) -> np.ndarray:
        """float32[height, width, 3] of uint8[h, w, 3], less the means."""
        mean, std = (np.array(values, "float32") for values in (self.config.pixel_mean, self.config.pixel_std))
        if self.pipeline.name.startswith("detectron2"):
            return (resize_antialiased(colours, height, width).astype("float32") - mean) / std
        if self.pipeline.is_caffe:
            return resize_bilinear((colours.astype("float32") - mean) / std, height, width, np.array(scales))
        return (resize_bilinear(colours.astype("float32"), height, width, np.array(scales, "float32")) - mean) / std


def resized_size(height: int, width: int, pipeline: Pipeline) -> tuple[int, int, tuple[float, float]]:
    """Height and width that a picture is resized to, and the scales (down, across) from there to the picture.

    Caffe has one scale, from before the sides are rounded, halves to even; the others round halves up, and their scales
    are the ratios of the sides.
    """
    shorter, longer = min(height, width), max(height, width)
    scale = pipeline.min_size / shorter
    if pipeline.is_caffe:
        if round(scale * longer) > pipeline.max_size:
            scale = pipeline.max_size / longer
        return round(height * scale), round(width * scale), (1 / scale, 1 / scale)
    sides = [scale * side if side > shorter else float(pipeline.min_size) for side in (height, width)]
    if max(sides) > pipeline.max_size:
        factor = pipeline.max_size / max(sides)
        sides = [side * factor for side in sides]
    new_height, new_width = (max(math.floor(side + 0.5), 1) for side in sides)
    return new_height, new_width, (height / new_height, width / new_width)


# Resizing


def resize_bilinear(image: np.ndarray, height: int, width: int, scales: np.ndarray) -> np.ndarray:
    """float32[height, width, C] of float32[h, w, C], without antialiasing.

    The source of pixel i is (i + 1/2) * scale - 1/2: where the scale is the ratio of the sizes in float32, this is
    PyTorch's interpolation; where it is the one that was asked for in float64, OpenCV's.
    """
    rows, row_shares = _sources(height, image.shape[0], scales[0])
    columns, column_shares = _sources(width, image.shape[1], scales[1])
    down = column_shares[:, None]
    upper, lower = ((1 - down) * image[r][:, columns[0]] + down * image[r][:, columns[1]] for r in rows)
    across = row_shares[:, None, None]
    return (1 - across) * upper + across * lower


def _sources(new: int, old: int, scale: np.floating) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The two pixels that each new one lies between, and the share of the second: float32[new]."""
    half = scale.dtype.type(0.5)
    places = np.clip((np.arange(new).astype(scale.dtype) + half) * scale - half, 0, old - 1)
    first = np.floor(places).astype(int)
    return (first, np.minimum(first + 1, old - 1)), (places - first).astype("float32")


def resize_antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8[height, width, 3] of uint8[h, w, 3], as Pillow does it."""
    pillow = import_pillow()
    resized = pillow.fromarray(np.ascontiguousarray(image)).resize((width, height), pillow.Resampling.BILINEAR)
    return np.asarray(resized)


# Reading


def read_image(image: Any, max_pixels: int = MAX_PIXELS, name: str | None = None) -> np.ndarray:
    """uint8[h, w, 3], red, green and blue, of what `ImageProcessor` takes; arguments as there.

    Raises:
        FileNotFoundError, BadImage, TypeError: as `ImageProcessor`.
    """
    if isinstance(image, np.ndarray):
        return _of_array(image, max_pixels)
    name = name or name_of(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return _of_file(io.BytesIO(image), name, max_pixels)
    if isinstance(image, str | os.PathLike):
        if not os.path.exists(image):
            if is_url(image):
                raise BadImage(f"{name} is a URL, which is not opened: download it, or pass the bytes that are there.")
            raise FileNotFoundError(f"There is no file {os.fspath(image)!r}.")
        if not os.path.isfile(image):
            raise BadImage(f"{name} is not a file.")
        try:
            with open(image, "rb") as file:
                return _of_file(file, name, max_pixels)
        except OSError as error:
            raise BadImage(f"{name} cannot be read ({error.strerror or error}).") from error
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _of_pillow(image, name, max_pixels)
    raise TypeError(
        f"A picture must be a path, the bytes of a file, a PIL image or an array, got {type(image).__name__}."
    )


def name_of(image: Any) -> str:
    """What messages call a picture: its path, or what it is."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    return (
        f"The picture of {len(image):,} bytes" if isinstance(image, bytes | bytearray | memoryview) else "The picture"
    )


def is_url(image: Any) -> bool:
    """Whether a picture is given by its URL."""
    return isinstance(image, str) and re.match(r"[a-zA-Z][\w+.-]*://", image) is not None


def _of_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.dtype not in (np.uint8, np.uint16):
        raise BadImage(
            "An array of a picture must be uint8 or uint16 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4], got "
            f"{array.dtype} {list(array.shape)}."
        )
    _check_size(array.shape[1], array.shape[0], "The array", max_pixels)
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def _of_file(file: Any, name: str, max_pixels: int) -> np.ndarray:
    import warnings

    pillow = import_pillow()
    if not file.read(1):
        raise BadImage(f"{name} is empty.")
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata; and of many pixels, which `max_pixels` is there for
        try:
            image = pillow.open(file)
        except pillow.UnidentifiedImageError:
            raise BadImage(f"{name} is not a picture of a known kind, such as JPEG or PNG.") from None
        except pillow.DecompressionBombError:
            limit = 2 * (pillow.MAX_IMAGE_PIXELS or 0)
            raise BadImage(f"{name} has more than {limit:,} pixels, which Pillow refuses to open.") from None
        except Exception as error:  # of whatever type: decoders raise nearly all there are
            raise BadImage(f"{name} is cut short or damaged ({_first_line(error)}).") from error
        with image:
            if image.format == "EPS":  # a program, which Ghostscript would run
                raise BadImage(f"{name} is not a picture of a known kind, such as JPEG or PNG.")
            return _of_pillow(image, name, max_pixels)


def _of_pillow(image: Any, name: str, max_pixels: int) -> np.ndarray:
    width, height = image.size
    _check_size(width, height, name, max_pixels)
    try:
        image.load()
        colours = _colours(image, name)
    except BadImage:
        raise
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise BadImage(f"{name} is cut short or damaged ({_first_line(error)}).") from error
    return np.ascontiguousarray(_turned(colours, _orientation(image)))


def _colours(image: Any, name: str) -> np.ndarray:
    """uint8[h, w, 3] of a loaded image."""
    if image.mode.startswith("I"):  # grey of 16 bits; Pillow would cut its values off at 255
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise BadImage(f"{name} has grey values beyond 16 bits; save it with 8 or 16 bits.")
        return np.repeat((grey.astype(np.uint16) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise BadImage(f"{name} has grey values that are fractions, of an unknown range; save it with 8 or 16 bits.")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _orientation(image: Any) -> int:
    """How the EXIF of a picture says it is to be turned, 1 to 8; 1 where it says nothing that can be read."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # of whatever type; the picture itself is not damaged
        return 1
    return orientation if isinstance(orientation, int) else 1


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """A picture turned as EXIF's orientations 1 to 8 say."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"{name} is {width}x{height} pixels; there is nothing in it.")
    if width * height > max_pixels:
        raise LargeImage(f"{name} has {width}x{height} pixels, more than the {max_pixels:,} that max_pixels allows.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].removesuffix(".")


def import_pillow() -> Any:
    """The module `PIL.Image`; ImportError with advice if Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Reading pictures needs Pillow: pip install 'lxmert-tf[detector]'.") from error
    return Image
