"""The bytes of JPEG and PNG files as pictures, in a graph: what `lxmert_tf.detector.image_processor` does in Python.

TensorFlow decodes them to the same colours as Pillow, but neither turns them as their EXIF says nor reports errors in
words; so their headers are read here.
"""

from typing import NamedTuple

import tensorflow as tf

from lxmert_tf.backend import asserted

PNG_SIGNATURE = 0x89504E470D0A1A0A
PNG_EXIF, PNG_END = 0x65584966, 0x49454E44  # the chunks eXIf and IEND
JPEG_START, JPEG_SCAN, JPEG_END, JPEG_APP1 = 0xFFD8FF, 0xDA, 0xD9, 0xE1  # markers
JPEG_BARE = [0x01, *range(0xD0, 0xD9)]  # markers without a segment
JPEG_FRAMES = sorted({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers of segments with the size
EXIF = 0x457869660000  # "Exif" and two zeros
ORIENTATION, BYTE, SHORT, LONG = 0x0112, 1, 3, 4  # a tag and types of TIFF


class Header(NamedTuple):
    """What a file says of its picture, int64[] each: height, width, and where the TIFF of its EXIF begins, or 0."""

    height: tf.Tensor
    width: tf.Tensor
    exif: tf.Tensor


def checked_image(x: tf.Tensor, condition: tf.Tensor, place: tf.Tensor | str, *parts: tf.Tensor | str) -> tf.Tensor:
    """`asserted` of a picture, by its place in the batch: `images[PLACE]` and the parts, texts and numbers."""
    texts = [part if isinstance(part, str) else tf.strings.as_string(part) for part in parts]
    return asserted(x, condition, tf.strings.join(["images[", place, "] ", *texts]))


def decode_image(content: tf.Tensor, max_pixels: int, place: tf.Tensor | str = "0") -> tf.Tensor:
    """uint8[h, w, 3], red, green and blue of a file, turned as its EXIF says.

    Args:
        content: string[], a JPEG or PNG file.
        max_pixels: of larger pictures, nothing but the header is read.
        place: string[], of the picture in its batch, for messages.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, saying what is wrong with the file.
    """
    data = tf.io.decode_raw(content, tf.uint8)
    size = tf.size(data)
    is_jpeg, is_png = number(data, 0, 3) == JPEG_START, number(data, 0, 8) == PNG_SIGNATURE - (1 << 64)
    other = "must be a JPEG or PNG file, got something else, of ", size, " bytes"
    data = checked_image(data, is_jpeg | is_png, place, *other)
    header = tf.cond(is_jpeg, lambda: jpeg_header(data), lambda: png_header(data))
    pixels = header.height * header.width
    damaged = "must be whole, but is cut short or damaged, of ", size, " bytes"
    content = checked_image(content, pixels > 0, place, *damaged)
    many = f"must have at most {max_pixels:,} pixels, got ", header.width, "x", header.height
    content = checked_image(content, pixels <= max_pixels, place, *many)
    image = _decoded_or_empty(content, is_jpeg)
    image = checked_image(image, tf.size(image) > 0, place, *damaged)
    return turned(image, orientation(data, header.exif))


def _decoded_or_empty(content: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
    """uint8[h, w, 3], or [0, 0, 3] of what cannot be decoded; only data sets go on after an error."""

    def decoded(content: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            is_jpeg,
            lambda: tf.io.decode_jpeg(content, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_png(content, channels=3),
        )

    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
    images = tf.data.Dataset.from_tensors((content, is_jpeg)).map(decoded).ignore_errors().concatenate(nothing)
    return images.take(1).get_single_element()


# Headers


def number(data: tf.Tensor, place: tf.Tensor | int, size: int, little: tf.Tensor | bool = False) -> tf.Tensor:
    """int64[...], the integer in `size` bytes of uint8[n] from each place, int[...]; beyond the end there are zeros."""
    places = tf.cast(place, tf.int64)[..., None] + tf.range(size, dtype=tf.int64)
    last = tf.size(data, tf.int64) - 1
    inside = tf.clip_by_value(places, 0, tf.maximum(last, 0))
    filled = tf.concat([data, tf.zeros([tf.cast(last < 0, tf.int32)], tf.uint8)], axis=0)
    values = tf.where((places >= 0) & (places <= last), tf.gather(filled, inside), tf.zeros([], tf.uint8))
    shifts = 8 * tf.range(size, dtype=tf.int64)
    shifts = tf.where(little, shifts, shifts[::-1])
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(values, tf.int64), shifts), axis=-1)


def jpeg_header(data: tf.Tensor) -> Header:
    """The header of a JPEG file, uint8[n]; a size of 0 where there is none."""

    def read_segment(place: tf.Tensor, header: Header) -> tuple[tf.Tensor, Header]:
        marker, length = number(data, place + 1, 1), number(data, place + 2, 2)
        is_frame, is_exif = _among(marker, JPEG_FRAMES), (marker == JPEG_APP1) & (number(data, place + 4, 6) == EXIF)
        read = Header(
            tf.where(is_frame, number(data, place + 5, 2), header.height),
            tf.where(is_frame, number(data, place + 7, 2), header.width),
            tf.where(is_exif & (header.exif == 0), place + 10, header.exif),
        )
        bare = tf.where(_among(marker, JPEG_BARE), tf.constant(2, tf.int64), 2 + length)
        step = tf.where(marker == 0xFF, tf.constant(1, tf.int64), bare)  # before a marker there may be any number of FF
        return place + step, read

    def goes_on(place: tf.Tensor, _: Header) -> tf.Tensor:
        ends = _among(number(data, place + 1, 1), [JPEG_SCAN, JPEG_END])
        return (number(data, place, 1) == 0xFF) & ~ends

    nothing = tf.constant(0, tf.int64)
    start = tf.constant(2, tf.int64), Header(nothing, nothing, nothing)
    return tf.while_loop(goes_on, read_segment, start)[1]


def png_header(data: tf.Tensor) -> Header:
    """The header of a PNG file, uint8[n]; a size of 0 where there is none."""

    def read_chunk(place: tf.Tensor, exif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        content = place + 8
        content += tf.where(number(data, content, 6) == EXIF, tf.constant(6, tf.int64), tf.constant(0, tf.int64))
        is_exif = number(data, place + 4, 4) == PNG_EXIF
        return place + 12 + number(data, place, 4), tf.where(is_exif, content, exif)

    def goes_on(place: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return (place < tf.size(data, tf.int64)) & (number(data, place + 4, 4) != PNG_END)

    start = tf.constant(8, tf.int64), tf.constant(0, tf.int64)
    exif = tf.while_loop(goes_on, read_chunk, start)[1]
    return Header(number(data, 20, 4), number(data, 16, 4), exif)


def orientation(data: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
    """int64[], how EXIF says that a picture is to be turned, 1 to 8, or anything where it says nothing.

    Args:
        data: uint8[n], the file.
        exif: int64[], where its TIFF begins; 0 where there is none.
    """
    little = number(data, exif, 2) == 0x4949
    is_tiff = (exif > 0) & (little | (number(data, exif, 2) == 0x4D4D)) & (number(data, exif + 2, 2, little) == 42)
    directory = exif + number(data, exif + 4, 4, little)
    entries = directory + 2 + 12 * tf.range(tf.where(is_tiff, number(data, directory, 2, little), 0))
    kinds = number(data, entries + 2, 2, little)
    known = (kinds == BYTE) | (kinds == SHORT) | (kinds == LONG)
    single = number(data, entries + 4, 4, little) == 1
    found = entries[(number(data, entries, 2, little) == ORIENTATION) & known & single][-1:]
    kind = number(data, found + 2, 2, little)
    values = tf.stack([number(data, found + 8, size, little) for size in (1, 2, 4)])  # [3, 1], or [3, 0]
    value = tf.where(kind == BYTE, values[0], tf.where(kind == SHORT, values[1], values[2]))
    return tf.reduce_max(tf.concat([value, tf.ones([1 - tf.size(value)], tf.int64)], axis=0))


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """A picture turned as EXIF's orientations 1 to 8 say."""
    for numbers, change in (
        ((5, 6, 7, 8), lambda image: tf.transpose(image, (1, 0, 2))),
        ((3, 4, 7, 8), lambda image: tf.reverse(image, [0])),
        ((2, 3, 6, 7), lambda image: tf.reverse(image, [1])),
    ):
        image = tf.cond(_among(orientation, numbers), lambda c=change, i=image: c(i), lambda i=image: i)
    return image


def _among(value: tf.Tensor, numbers: list[int] | tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(numbers, value.dtype))
