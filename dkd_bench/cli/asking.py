"""Commands built from request types: options, defaults and help are those of the request's fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import typer

from dkd_bench.cli.options import as_option
from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.steps.words import Word, words_of

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
P = ParamSpec("P")

_NOTHING: Mapping[str, Any] = {}


def asking(
    request: type[RequestT],
    *,
    first: Sequence[str] = (),
    without: Collection[str] = (),
    instead: Mapping[str, Word] = _NOTHING,
    fixed: Mapping[str, Any] = _NOTHING,
) -> Callable[[Callable[Concatenate[RequestT, P], ResultT]], Callable[..., ResultT]]:
    """Return a decorator that makes a command out of a function of a request and of options of its own.

    Args:
        request: a dataclass whose fields carry a ``Word``; those that carry none are not asked for.
        first: fields that the help shows first; the others follow in their order.
        without: fields that are not asked for, and keep their default.
        instead: by field, what the command says of it otherwise than the request.
        fixed: by field, values that are not asked for.
    """
    hints = get_type_hints(request)
    asked = {
        name: _FieldOption(name=name, field=field, word=instead.get(name, word), hint=hints[name])
        for name, (field, word) in words_of(request).items()
        if name not in without and name not in fixed
    }
    order = [*first, *(name for name in asked if name not in first)]

    def decorated(command: Callable[Concatenate[RequestT, P], ResultT]) -> Callable[..., ResultT]:
        _, *own = signature(command, eval_str=True).parameters.values()

        @wraps(command)
        def called(*args: P.args, **words: P.kwargs) -> ResultT:
            values = {name: each.value(words.pop(name)) for name, each in asked.items()}
            return command(request(**values, **fixed), *args, **words)

        parameters = [*(asked[name].parameter for name in order), *own]
        called.__signature__ = Signature([each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters])  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in parameters}
        return called

    return decorated


@dataclass(frozen=True, slots=True, kw_only=True)
class _FieldOption:
    """Field of a request as an option, or an argument, of a command."""

    name: str
    field: Field[Any]
    word: Word
    hint: Any

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return as_option(FieldName(self.name, option=self.word.option))

    @property
    def default(self) -> Any:
        """Value where nothing is said; ``MISSING`` where something must be."""
        return self.field.default if self.word.default is ... else self.word.default

    @property
    def several(self) -> bool:
        """Whether the field holds several values."""
        return get_origin(self.hint) is tuple

    @property
    def parameter(self) -> Parameter:
        """Parameter of which typer makes the option."""
        facts: dict[str, Any] = {"metavar": self.word.metavar, "help": self.word.help}
        if self.word.positional:
            return self._parameter(typer.Argument(**facts), Parameter.empty)
        default = self.default
        if self.word.none:
            default = self.word.none
        elif default is MISSING:
            default = Parameter.empty
        elif self.several and self.word.once:
            default = default or None
        elif self.several:
            facts["default_factory"] = lambda: list(self.default)
            facts["show_default"] = self.word.shown_default or ", ".join(map(str, default)) or False
            return self._parameter(typer.Option(self.option, **facts), Parameter.empty)
        if self.word.shown_default:
            facts["show_default"] = self.word.shown_default
        return self._parameter(typer.Option(self.option, **facts), default)

    def value(self, given: Any) -> Any:
        """Return the field's value for what was given.

        Raises:
            ConfigError: if it is no number where a number, or one word, is asked for.
        """
        if self.several:
            one = () if given is None else (given,)
            return one if self.word.once else tuple(given)
        if not self.word.none:
            return given
        try:
            return None if given == self.word.none else int(given)
        except ValueError:
            raise ConfigError(f"{self.option} must be a number or {self.word.none}, got {given!r}") from None

    def _parameter(self, info: Any, default: Any) -> Parameter:
        annotation = Annotated[self._type, info]  # type: ignore[name-defined]
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    @property
    def _type(self) -> Any:
        if self.word.choices:
            return Literal[self.word.choices]
        if self.word.none:
            return str
        if not self.several:
            return self.hint
        item = get_args(self.hint)[0]
        if not self.word.once:
            return list[item]  # type: ignore[valid-type]
        return item if self.default else item | None
