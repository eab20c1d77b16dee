"""``dkd-bench explain``: what a flag beside a row means, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from dkd_bench.cli.console import show
from dkd_bench.errors import UnknownNameError
from dkd_bench.records.flags import FLAGS


def explain(
    flag: Annotated[
        str, typer.Argument(metavar="FLAG", help="A flag as it stands beside a row; without one, all.")
    ] = "",
) -> None:
    """Say what a flag means. A row with a flag is shown, and not ranked.

    suspicious: the number may flatter the defence. invalid: there is no number that counts.
    """
    if flag and flag not in FLAGS:
        raise UnknownNameError("flag", flag, FLAGS, known_as="Flags")
    for each in [FLAGS[flag]] if flag else FLAGS.values():
        show(f"{each.name} ({each.severity})\n  {each.meaning}\n  What to do: {each.remedy}")
