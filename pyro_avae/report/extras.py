"""Sections of a report beyond what the run folders hold: a table, a figure, a few paragraphs of one's own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyro_avae.errors import InputError, shown_value
from pyro_avae.report.style import Picture

__all__ = ["Extra", "ExtraTable"]


@dataclass(frozen=True)
class ExtraTable:
    """A table of plain text; the page escapes every cell.

    Attributes:
        caption: stands over the table.
        headings: one a column.
        rows: each with one cell a column, the first of which names the row.
        emphasised: numbers of the rows, from 0, that are set off in soft italics: published numbers between one's own.

    Raises:
        InputError: a row with more or fewer cells than headings, or an emphasised row that is not there.

    Example:
        >>> rows = [["AVAE", "84.9"], ["AVAE, published", "88"]]
        >>> ExtraTable("Accuracy in %", ["method", "ε = 0.1"], rows, emphasised={1}).rows[1]
        ['AVAE, published', '88']
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    emphasised: Collection[int] = ()

    def __post_init__(self) -> None:
        columns = len(self.headings)
        for place, row in enumerate(self.rows):
            if isinstance(row, str) or len(row) != columns:
                raise InputError(
                    f"rows: expected {columns} cells in row {place}, as there are headings, got {shown_value(row)}"
                )
        for place in self.emphasised:
            if place not in range(len(self.rows)):
                raise InputError(
                    f"emphasised: expected numbers of rows, 0 to {len(self.rows) - 1}, got {shown_value(place)}"
                )


@dataclass(frozen=True)
class Extra:
    """One section, printed in the order of its attributes.

    Attributes:
        heading: of the section.
        paragraphs: plain text, escaped as everything else.
        table: under the paragraphs.
        picture: under the table.
        caption: under the picture; without a picture it is left out.

    Raises:
        InputError: ``paragraphs`` that are one text instead of several.

    Example:
        >>> Extra("Published numbers", ["Table 1 of the paper."]).heading
        'Published numbers'
    """

    heading: str
    paragraphs: Sequence[str] = ()
    table: ExtraTable | None = None
    picture: Picture | None = None
    caption: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.paragraphs, str):
            raise InputError(
                f"paragraphs: expected a list of texts, got {shown_value(self.paragraphs)}; put it in brackets"
            )
