"""Choice of a renderer by the name of the format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from dkd_bench.errors import UnknownNameError
from dkd_bench.leaderboard._board import Board
from dkd_bench.leaderboard._json import render_json
from dkd_bench.leaderboard._markdown import render_markdown

Format = Literal["markdown", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_RENDERERS: dict[str, Callable[[Board], str]] = {"markdown": render_markdown, "json": render_json}


def render(board: Board, format: Format) -> str:
    """Return the board as text in ``format``, ending in a newline.

    Raises:
        UnknownNameError: if there is no such format.
    """
    renderer = _RENDERERS.get(format)
    if renderer is None:
        raise UnknownNameError("format", format, _RENDERERS, known_as="Known")
    return renderer(board)
