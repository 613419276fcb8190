"""Arrays and tensors → PIL images, by duck typing: no array library is imported here.

Arrays are RGB (OpenCV's BGR must be reversed by the caller).
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..errors import SourceError

_CHANNELS = (1, 3, 4)
_TOLERANCE = 0.01
_NOT_NUMBERS = ("object", "str", "category", "<U", ">U")


def is_array(value: Any) -> bool:
    """Whether a value is an ndarray, a tensor or anything else with a shape and numbers (not texts)."""
    if isinstance(value, Image.Image) or not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return False
    has_data = hasattr(value, "__array_interface__") or hasattr(value, "__array__")
    return has_data and not str(value.dtype).startswith(_NOT_NUMBERS)


def encoded_bytes(value: Any) -> bytes | None:
    """The bytes of a one-dimensional uint8 array (an encoded file); None for any other."""
    if len(value.shape) != 1 or not str(value.dtype).endswith("uint8"):
        return None
    return bytes(host_array(value).tobytes())


def is_batch(value: Any) -> bool:
    """Whether an array holds several images (four axes, the first counting them)."""
    return len(value.shape) == 4


def shape_text(value: Any) -> str:
    """The shape as a label: "480×640×3"."""
    return "×".join(str(int(size)) for size in value.shape)


def to_image(value: Any) -> Image.Image:
    """Return an L, RGB or RGBA image of an array.

    ``value`` is (H, W) or (H, W, 1|3|4), or channels first (1|3|4, H, W) as torch has it: tensors are read
    channels first where both would do, arrays channels last. Values: uint8; bool; uint16 (scaled by 1/257);
    other integers in 0..255; floats in 0..1. Raises SourceError for anything else.
    """
    tensor = hasattr(value, "detach")
    array = _layout(host_array(value), channels_first=tensor)
    if 0 in array.shape:
        raise SourceError(f"an array without pixels (shape {shape_text(value)}).")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(_to_uint8(array))


def host_array(value: Any) -> Any:
    """Return the ndarray of a tensor (fetched to the CPU) or of anything with ``__array__``.

    Raises SourceError for one whose numbers cannot be had (a sparse tensor, or one without data).
    """
    try:
        return _host_array(value)
    except Exception as error:  # noqa: BLE001 - array libraries raise anything
        said = str(error).strip().splitlines() or [""]
        raise SourceError(f"its numbers cannot be read ({type(error).__name__}: {said[0][:200]}).") from None


def _host_array(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):
            value = value.float()
        return value.numpy()
    return value if hasattr(value, "__array_interface__") and hasattr(value, "astype") else value.__array__()


def _layout(array: Any, *, channels_first: bool) -> Any:
    """Return (H, W) or (H, W, C), whichever way round the channels came."""
    shape = array.shape
    if array.ndim == 2:
        return array
    first, last = (array.ndim == 3 and shape[axis] in _CHANNELS for axis in (0, -1))
    if not (first or last):
        raise SourceError(
            f"an array of shape {shape_text(array)}; expected H×W, H×W×1, H×W×3, H×W×4 or channels first."
        )
    return array.transpose(1, 2, 0) if first and (channels_first or not last) else array


def _to_uint8(array: Any) -> Any:
    kind = array.dtype.name  # without the byte order
    if kind == "uint8":
        return array
    if kind == "bool":
        return array.astype("uint8") * 255
    if kind == "uint16":
        return (array / 257.0).round().astype("uint8")
    if not kind.startswith(("float", "int", "uint")):
        raise SourceError(f"a {kind} array holds no pixels; expected uint8 (0..255).")
    low, high = float(array.min()), float(array.max())
    if kind.startswith("float"):
        return _from_float(array, low, high, kind)
    if kind.startswith(("int", "uint")) and low >= 0 and high <= 255:
        return array.astype("uint8")
    raise SourceError(f"a {kind} array with values from {low:g} to {high:g}; expected uint8 (0..255).")


def _from_float(array: Any, low: float, high: float, kind: str) -> Any:
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # "not" so that NaN fails too
        hint = "divide by 255" if low >= 0 and high <= 255 else "undo its normalisation"
        raise SourceError(f"a {kind} array with values from {low:g} to {high:g}; expected 0..1: {hint}.")
    return (array.clip(0, 1) * 255).round().astype("uint8")
