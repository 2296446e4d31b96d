"""One table, written for the terminal, for Markdown or for LaTeX."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO

from dissect.errors import DissectError

#: Stands where there is no number.
NONE = "–"
#: Columns of the terminal that a table for it may take.
WIDTH = 110
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "±": r"$\pm$", "−": r"$-$", "≤": r"$\le$", "≥": r"$\ge$", "×": r"$\times$", "–": "--", "σ": r"$\sigma$",
    "α": r"$\alpha$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of finished text; nothing in it is markup.

    Attributes
    ----------
    title : str
        What it shows, of what.
    columns : sequence of str
    rows : sequence of sequence of str
        As many cells in each as there are columns.
    notes : sequence of str
        Printed below, one paragraph each.
    left : int
        How many of the first columns are set flush left; the others are numbers, flush right.
    breaks : sequence of int
        Indices of rows that a line stands before.

    Raises
    ------
    ValueError
        If a row is not as long as the columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1
    breaks: Sequence[int] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells, the table {len(self.columns)} columns")


def render(table: Table, how: str = "text") -> str:
    """The table as text that ends without a newline.

    Parameters
    ----------
    table : Table
    how : {"text", "markdown", "latex"}
        ``text`` is at most `WIDTH` columns wide; ``latex`` needs the package booktabs.

    Raises
    ------
    DissectError
        If there is no such format.
    """
    choose_format(how)
    return FORMATS[how](table)


def choose_format(how: str) -> None:
    """Refuse what is no format, with the valid ones."""
    if how not in FORMATS:
        raise DissectError(f"no format {how!r}; valid: {', '.join(FORMATS)}")


def _text(table: Table) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    # Cells are Text, not str: rich would read "[-0.1, 0.2]" as markup.
    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(table.columns):
        side = "left" if number < table.left else "right"
        # The words on the left may wrap; a number broken over two lines is two numbers.
        drawn.add_column(Text(column), justify=side, no_wrap=number >= table.left, overflow="fold")
    for number, row in enumerate(table.rows):
        if number in table.breaks:
            drawn.add_section()
        drawn.add_row(*map(Text, row))
    out = StringIO()
    Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False).print(drawn)
    body = [line.rstrip() for line in out.getvalue().rstrip("\n").split("\n")]
    notes = [textwrap.fill(n, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for n in table.notes]
    return "\n".join([textwrap.fill(table.title, WIDTH, break_on_hyphens=False), "", *body, "", *notes]).rstrip("\n")


def escape_markdown(text: str) -> str:
    """Text as Markdown shows it, with nothing in it read as markup."""
    return re.sub(r"([\\|*_`<])", r"\\\1", text)


def _markdown(table: Table) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = ["---" if n < table.left else "---:" for n in range(len(table.columns))]
    rows = [row([escape_markdown(c) for c in cells]) for cells in (table.columns, *table.rows)]
    lines = [f"**{escape_markdown(table.title)}**", "", rows[0], row(rule), *rows[1:]]
    return "\n".join([*lines, *(f"\n{escape_markdown(note)}" for note in table.notes)])


def _latex(table: Table) -> str:
    def escape(text: str) -> str:
        plain = "".join(_LATEX.get(c, c) for c in text)
        return re.sub(r"(?<![\w$-])-(?=\d)", "$-$", plain)  # a minus sign, not a hyphen

    def row(cells: Sequence[str]) -> str:
        # In braces: a "[" that follows the "\\" of the row above would be read as its option.
        return " & ".join("{" + escape(c) + "}" if c.startswith("[") else escape(c) for c in cells) + r" \\"

    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        rf"\begin{{tabular}}{{{'l' * table.left}{'r' * (len(table.columns) - table.left)}}}",
        r"\toprule",
        row(table.columns),
        r"\midrule",
    ]
    for number, cells in enumerate(table.rows):
        if number in table.breaks:
            lines.append(r"\midrule")
        lines.append(row(cells))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = [rf"\par\smallskip {escape(note)}" for note in table.notes]
        lines += [r"\begin{minipage}{\linewidth}\footnotesize", *notes, r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


FORMATS: dict[str, Callable[[Table], str]] = {"text": _text, "markdown": _markdown, "latex": _latex}


def number(value: float, form: str = ".2f") -> str:
    """A number by a format of Python's; a dash for NaN."""
    return NONE if math.isnan(value) else format(value, form)


def plain(value: float) -> float | None:
    """A number for JSON: six decimals, None for NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def signed(value: float, digits: int = 2, unit: str = "") -> str:
    """A number with its sign, which 0 has not; a dash for NaN."""
    text = number(value, f"+.{digits}f")
    if text == NONE:
        return text
    return (text if float(text) else text[1:]) + unit


def p_value(value: float) -> str:
    """Three decimals, ``< 0.001`` below them, a dash for NaN."""
    return "< 0.001" if value < 0.001 else number(value, ".3f")


def span(values: Iterable[float]) -> str:
    """One value, or the least and the greatest of several: ``1,200`` or ``1,200 to 1,350``."""
    ordered = sorted(set(values))
    shown = [f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in (ordered[0], ordered[-1])]
    return shown[0] if len(ordered) == 1 else " to ".join(shown)
