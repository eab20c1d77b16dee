"""``dkd-bench list``: what is installed, without importing any of it."""

from __future__ import annotations

from typing import Annotated

import typer

from dkd_bench.cli.console import show
from dkd_bench.errors import UnknownNameError
from dkd_bench.plugins import registry


def list_plugins(
    kind: Annotated[
        str, typer.Argument(metavar="defenses|attacks|datasets|threat-models|commands", help="What to list.")
    ],
) -> None:
    """List the installed defences, attacks, datasets, threat models or commands of plugins."""
    if kind not in registry.GROUPS:
        raise UnknownNameError("kind of plugin", kind, registry.GROUPS, known_as="Kinds")
    plugins = registry.summaries(kind)  # type: ignore[arg-type]
    width = max((len(plugin.name) for plugin in plugins), default=0)
    for plugin in plugins:
        show(f"{plugin.name:<{width}}  {plugin.summary}  [{plugin.distribution}]")
