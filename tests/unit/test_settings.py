"""Words on the command line become settings, by their declared types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional

import pytest

from dkd_bench.errors import ConfigError, UnknownNameError
from dkd_bench.plugins.settings import NoSettings, setting_names, settings_as_json, settings_from_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """One setting of every type."""

    steps: int = 40
    zeta: float = 0.9
    name: str = "auto"
    early: bool = False
    weight: float | None = None
    limit: Optional[int] = 3  # noqa: UP045
    turned: bool | None = None
    mode: Literal["a", "b"] = "a"
    layers: tuple[int, ...] = (1, 2)
    sizes: list[int] | None = None
    pair: tuple[int] = (1,)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}")


def parsed(**words: str) -> Every:
    return settings_from_words(Every, words, owner="pgd")


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("steps", "7", 7),
        ("zeta", "0.5", 0.5),
        ("zeta", "1e-3", 0.001),
        ("zeta", "1", 1.0),
        ("name", "lenet", "lenet"),
        ("name", "", ""),
        ("name", "7", "7"),
        ("early", "true", True),
        ("early", "False", False),
        ("early", "yes", True),
        ("early", "NO", False),
        ("weight", "0.25", 0.25),
        ("limit", "9", 9),
        ("turned", "true", True),
    ],
)
def test_words_by_type(name: str, word: str, value: Any) -> None:
    found = getattr(parsed(**{name: word}), name)
    assert found == value
    assert type(found) is type(value)


def test_the_rest_keeps_its_defaults() -> None:
    assert parsed(steps="7") == Every(steps=7)
    assert parsed() == Every()


@pytest.mark.parametrize(
    ("name", "word", "expected"),
    [
        ("steps", "many", "int"),
        ("steps", "1.5", "int"),
        ("steps", "", "int"),
        ("zeta", "half", "a finite float"),
        ("zeta", "nan", "a finite float"),
        ("zeta", "-inf", "a finite float"),
        ("weight", "1e999", "a finite float"),
        ("limit", "none", "int"),
        ("early", "1", "bool"),
        ("early", "maybe", "bool"),
    ],
)
def test_words_that_do_not_parse(name: str, word: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^setting '{name}' of pgd must be {expected}, got '{word}'$"):
        parsed(**{name: word})


@pytest.mark.parametrize("name", ["mode", "layers", "sizes", "pair"])
def test_types_that_no_word_gives(name: str) -> None:
    with pytest.raises(ConfigError, match=f"setting '{name}' of pgd cannot be given as a word; set it in Python"):
        parsed(**{name: "3"})


def test_unknown_setting() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no setting of pgd named 'step'\. Did you mean 'steps'\? Its settings: "
    ):
        parsed(step="3")
    with pytest.raises(UnknownNameError, match=r"no setting of fgsm named 'steps'\. Its settings: none"):
        settings_from_words(NoSettings, {"steps": "3"}, owner="fgsm")


def test_the_settings_may_refuse_a_value() -> None:
    with pytest.raises(ConfigError, match="steps must be at least 1, got 0"):
        parsed(steps="0")


def test_names_and_plain_values() -> None:
    assert setting_names(NoSettings) == []
    assert settings_as_json(NoSettings()) == {}
    assert setting_names(Every) == list(settings_as_json(Every()))
    assert settings_as_json(Every())["layers"] == [1, 2]
    assert settings_as_json(Every())["weight"] is None
