"""Base class of all records: frozen, no unknown field, no NaN; and the type of fractions."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Fraction = float
"""Number in [0, 1], unrounded: rounding is the renderer's."""


class Record(BaseModel):
    """Base class of what is kept in a file: frozen, without NaN, and refused with an unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Record):
    """A fraction with its Wilson interval."""

    value: Fraction
    ci95: tuple[Fraction, Fraction]
