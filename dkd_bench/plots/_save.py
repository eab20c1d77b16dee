"""Rendering of a figure to the bytes of a file: the same figure, the same bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal, get_args

from matplotlib.figure import Figure

from dkd_bench.errors import UnknownNameError
from dkd_bench.plots._style import house_style

PictureFormat = Literal["png", "svg"]
PICTURE_FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)

_DPI = 150
_METADATA: dict[PictureFormat, dict[str, Any]] = {"png": {}, "svg": {"Date": None}}


def figure_bytes(figure: Figure, format: PictureFormat) -> bytes:
    """Return ``figure`` as a file of ``format``, without a date and with ids that depend on the content alone.

    Raises:
        UnknownNameError: if there is no such format.
    """
    if format not in PICTURE_FORMATS:
        raise UnknownNameError("picture format", format, PICTURE_FORMATS, known_as="Known")
    stream = BytesIO()
    with house_style():
        figure.savefig(stream, format=format, dpi=_DPI, metadata=_METADATA[format])
    return stream.getvalue()
