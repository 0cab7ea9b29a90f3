"""What a setting may be: how a value is checked, and how it is read from text."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyro_avae.errors import InputError, shown_value

__all__ = ["Integer", "IntegerList", "Kind", "Number", "NumberOr", "Optional", "Switch", "Text"]


class Kind(ABC):
    """The values that a setting may have."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What is allowed, to follow "expected"."""

    @property
    @abstractmethod
    def metavar(self) -> str:
        """What stands for the value in a help text."""

    @abstractmethod
    def accepts(self, value: Any) -> Any:
        """``value`` in its own type, or a ValueError or TypeError."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value that a command line gives as text, or a ValueError."""

    def check(self, name: str, value: Any) -> Any:
        """``value`` in its own type; :class:`InputError` with the setting's ``name`` where it is not allowed."""
        try:
            return self.accepts(value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name}: expected {self.allowed}, got {shown_value(value)}") from None

    def read(self, name: str, text: str) -> Any:
        """:meth:`parse` and :meth:`check` in one."""
        try:
            return self.accepts(self.parse(text))
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name}: expected {self.allowed}, got {shown_value(text)}") from None


@dataclass(frozen=True)
class Integer(Kind):
    """An integer in ``least..most``."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"an integer in {self.least}..{self.most}"

    @property
    def metavar(self) -> str:
        return "N"

    def accepts(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise ValueError
        return value

    def parse(self, text: str) -> int:
        return int(text)


@dataclass(frozen=True)
class Number(Kind):
    """A finite number for which ``test`` holds; ``description`` says what that is."""

    description: str
    test: Callable[[float], bool]

    @property
    def allowed(self) -> str:
        return self.description

    @property
    def metavar(self) -> str:
        return "NUMBER"

    def accepts(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        number = float(value)
        if not math.isfinite(number) or not self.test(number):
            raise ValueError
        return number

    def parse(self, text: str) -> float:
        return float(text)


@dataclass(frozen=True)
class Text(Kind):
    """A text that is not empty."""

    of: str

    @property
    def allowed(self) -> str:
        return self.of

    @property
    def metavar(self) -> str:
        return "NAME"

    def accepts(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value

    def parse(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class NumberOr(Kind):
    """A number, or one of a few words."""

    number: Number
    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"{self.number.allowed} or {' or '.join(map(repr, self.words))}"

    @property
    def metavar(self) -> str:
        return "|".join((self.number.metavar, *self.words))

    def accepts(self, value: Any) -> float | str:
        return value if value in self.words else self.number.accepts(value)

    def parse(self, text: str) -> float | str:
        return text if text in self.words else self.number.parse(text)


@dataclass(frozen=True)
class IntegerList(Kind):
    """Integers, between ``fewest`` and ``most`` of them; kept as a tuple."""

    item: Integer
    fewest: int
    most: int

    @property
    def allowed(self) -> str:
        count = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        return f"{count} integers in {self.item.least}..{self.item.most}"

    @property
    def metavar(self) -> str:
        return "N"

    def accepts(self, value: Any) -> tuple[int, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError
        if not self.fewest <= len(value) <= self.most:
            raise ValueError
        return tuple(self.item.accepts(number) for number in value)

    def parse(self, text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split())


@dataclass(frozen=True)
class Switch(Kind):
    """True or False; ``--name`` and ``--no-name`` on the command line."""

    @property
    def allowed(self) -> str:
        return "True or False"

    @property
    def metavar(self) -> str:
        return ""

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError
        return value

    def parse(self, text: str) -> bool:
        return {"true": True, "false": False}[text.lower()]


@dataclass(frozen=True)
class Optional(Kind):
    """A value of another kind, or None. On the command line, None is the option left out."""

    kind: Kind

    @property
    def allowed(self) -> str:
        return self.kind.allowed

    @property
    def metavar(self) -> str:
        return self.kind.metavar

    def accepts(self, value: Any) -> Any:
        return None if value is None else self.kind.accepts(value)

    def parse(self, text: str) -> Any:
        return self.kind.parse(text)
