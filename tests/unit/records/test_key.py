"""What tells a cell of a run from all others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from dkd_bench.budget import Budget
from dkd_bench.records import CellKey, CellRecord

KEY = CellKey(
    defense="dkd",
    decision="majority",
    dataset="digits",
    threat_model="joint",
    attack="pgd",
    norm="linf",
    eps=0.1,
)
OTHERS = {
    "defense": "other",
    "decision": "boosted",
    "dataset": "mnist",
    "threat_model": "standalone",
    "attack": "fgsm",
    "norm": "l2",
    "eps": None,
}


def test_its_text_names_the_cell() -> None:
    assert str(KEY) == f"{KEY}" == "dkd majority, joint, pgd linf 0.1"
    assert str(KEY.model_copy(update={"norm": "l2", "eps": None})) == "dkd majority, joint, pgd l2 unbudgeted"


def test_its_budget() -> None:
    assert KEY.budget == Budget(norm="linf", eps=0.1)


def test_a_cell_has_its_key(make_cell: Callable[..., CellRecord]) -> None:
    assert make_cell().key == KEY
    assert hash(make_cell().key) == hash(KEY)
    assert make_cell("ffff").key == KEY
    assert "key" not in make_cell().model_dump()


@pytest.mark.parametrize(("field", "value"), OTHERS.items())
def test_what_differs_in_one_field_is_another_cell(
    make_cell: Callable[..., CellRecord], field: str, value: object
) -> None:
    other = make_cell(**{field: value}).key
    assert other != KEY
    assert len({KEY, other, make_cell().key}) == 2


def test_the_same_images_may_be_called_otherwise() -> None:
    copy = KEY.with_dataset("copy")
    assert (copy.dataset, str(copy)) == ("copy", str(KEY))
    assert copy.with_dataset("digits") == KEY


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        KEY.eps = 0.2  # type: ignore[misc]
