"""Rendering of the board for programs: the fields of ``Board`` in their order, raw fractions, no NaN."""

from __future__ import annotations

import json

from dkd_bench.leaderboard._board import Board


def render_json(board: Board) -> str:
    """Return the board as JSON, indented by two; ``Board.model_validate_json`` reads it back."""
    return json.dumps(board.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
