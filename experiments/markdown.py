"""Tables as Markdown."""

from collections.abc import Sequence

from pyro_avae.report import ExtraTable

__all__ = ["markdown"]


def markdown(title: str, words: Sequence[str], tables: Sequence[ExtraTable]) -> str:
    r"""A page of paragraphs, then tables, each under its caption.

    Example:
        >>> print(markdown("Sizes", ["Measured."], [ExtraTable("In cm.", ["what", "size"], [["a|b", "3"]])]))
        # Sizes
        <BLANKLINE>
        Measured.
        <BLANKLINE>
        In cm.
        <BLANKLINE>
        | what | size |
        | :--- | ---: |
        | a\|b | 3 |
        <BLANKLINE>
    """
    return "\n\n".join([f"# {title}", *words, *map(_table, tables)]) + "\n"


def _table(table: ExtraTable) -> str:
    rules = [":---", *["---:"] * (len(table.headings) - 1)]
    rows = [_line(row, quiet=place in table.emphasised) for place, row in enumerate(table.rows)]
    return "\n".join([table.caption, "", _line(table.headings), _line(rules), *rows])


def _line(cells: Sequence[str], *, quiet: bool = False) -> str:
    escaped = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(f'*{cell}*' if quiet and cell else cell for cell in escaped)} |"
