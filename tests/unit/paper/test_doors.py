"""The paper's plugin stands on the public names that everybody has."""

from __future__ import annotations

import ast
from pathlib import Path

import dkd_paper

FILES = sorted(Path(dkd_paper.__file__).parent.glob("*.py"))


def test_it_imports_public_names_of_the_harness_alone():
    private = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dkd_bench"):
                words = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                private += [f"{file.name}: {'.'.join(words)}" for word in words if word.startswith("_")]
    assert private == []
