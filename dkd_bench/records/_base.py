"""The base of all records: frozen, no field that this version does not know, no NaN; and fractions."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Fraction = float
"""A number in [0, 1]; rounding is the renderer's."""


class Record(BaseModel):
    """Base of what is kept in a file: frozen, without NaN, and refused with a field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Record):
    """A fraction with its Wilson interval."""

    value: Fraction
    ci95: tuple[Fraction, Fraction]
