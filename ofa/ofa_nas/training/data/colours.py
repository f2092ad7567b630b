"""Convert the modes of Pillow to RGB with 8 bits, without clipping what has more.

Pillow's own conversion clips 16-bit and floating-point values at 255, and shows the colours under transparent pixels.
"""

from typing import Any

import numpy as np

WHOLE = 257  # 65,535 / 255
TRANSPARENT = frozenset({"LA", "PA", "RGBA", "La", "RGBa"})
OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})
MANY_BITS = ("I", "F")  # the first letters of the modes I, I;16, I;16B …, F
TWELVE_BITS = (1 << 12) - 1


class UnsupportedMode(Exception):
    """Names the mode of an image that cannot be converted, and what to do."""


def to_rgb(image: Any) -> Any:
    """Return a Pillow image of the same size, RGB. Transparent pixels are laid on white.

    Modes I and I;16 have values 0 to 65,535, mode F has values 0 to 1. These ranges are the same for all images, so
    that a dark image stays dark. Raises UnsupportedMode for other values, and for other modes.
    """
    if image.mode.startswith(MANY_BITS):
        return _to_grey(image).convert("RGB")
    if image.mode not in TRANSPARENT | OPAQUE:
        raise UnsupportedMode(f"mode {image.mode} has no conversion to RGB; save the image as RGB")
    if image.mode in TRANSPARENT or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Any) -> Any:
    from PIL import Image

    if image.mode == "La":  # premultiplied
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _to_grey(image: Any) -> Any:
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    most = 1 if image.mode == "F" else WHOLE * 255
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most):  # also if a value is not a number
        raise UnsupportedMode(
            f"mode {image.mode} has values from {low:g} to {high:g}, not 0 to {most:,}; save the image with 8 bits"
        )
    return Image.fromarray((values * (255 / most)).round().astype(np.uint8))


def uses_few_bits(image: Any) -> bool:
    """Whether a 16-bit image has at most 12 bits: it then comes out almost black."""
    return image.mode.startswith("I") and 0 < int(np.asarray(image).max()) <= TWELVE_BITS
