"""Errors name fields; whoever shows them spells the fields."""

from __future__ import annotations

import pickle

import pytest

from dkd_bench.cli.options import as_option
from dkd_bench.errors import ConfigError, FieldName, Sentence, UnknownNameError
from dkd_bench.steps.request import RunRequest


def test_a_sentence_is_text_that_names_fields() -> None:
    seed = Sentence("use the same ", FieldName("n_examples"), " and ", FieldName("seed"))
    assert seed == "use the same n_examples and seed"
    assert seed.spelled(as_option) == "use the same --n-examples and --seed"
    assert Sentence("so: ", seed).spelled(as_option) == "so: use the same --n-examples and --seed"
    assert not Sentence()


@pytest.mark.parametrize(
    ("field", "option"),
    [
        (FieldName("defenses"), "--defense"),
        (FieldName("threat_models"), "--threat-model"),
        (FieldName("settings"), "--set"),
        (FieldName("strict_environment"), "--strict-environment"),
        (FieldName("levels", option="level"), "--level"),
        (FieldName("of_a_plugin"), "--of-a-plugin"),
    ],
)
def test_the_command_line_puts_the_dashes_on(field: FieldName, option: str) -> None:
    assert as_option(field) == option


def test_errors_say_the_same_to_both() -> None:
    with pytest.raises(ConfigError, match=r"^seed must be from 0 to 2147483647, got -1$") as caught:
        RunRequest(defenses=("dkd",), seed=-1)
    assert caught.value.sentence.spelled(as_option) == "--seed must be from 0 to 2147483647, got -1"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    unknown = UnknownNameError("attack", "pdg", ["pgd"])
    assert unknown.sentence.spelled(as_option) == str(unknown)
