"""What the first bytes of a file that is no image look like, in words."""

from __future__ import annotations

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "gzip data"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (b"%!PS", "PostScript"),
    (b"\x89PNG", "a PNG with a damaged header"),
    (b"\xff\xd8", "a JPEG with a damaged header"),
    (b"GIF8", "a GIF with a damaged header"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array: np.load it first"),
    (b"\x1aE\xdf\xa3", "a video (Matroska)"),
)
_TAGS: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG drawing (convert it to PNG)"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "XML"),
)


def looks_like(head: bytes) -> str:
    """Describe the first bytes of a file, as "an HTML page"."""
    if not head:
        return "an empty file (0 bytes)"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "a video or an image format that is not supported here"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for tag, name in _TAGS:
        if tag in text[:512] and text.startswith(b"<"):
            return name
    return _text_or_binary(head, text)


def _text_or_binary(head: bytes, text: bytes) -> str:
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in head)
    if b"\0" in head or printable < 0.95 * len(head):
        return "unknown binary data"
    return "JSON" if text[:1] in (b"{", b"[") else "text"
