"""A table is the same cells in every format, and none of them is markup."""

from __future__ import annotations

import math

import pytest

from dissect.errors import DissectError
from dissect.report.formats import WIDTH, Table, number, p_value, render, signed, span

TABLE = Table(
    "50% & more_of_it",
    ("model", "x [y]"),
    [("a|b", "-0.10 [-0.2, +0.3]"), ("[bold]c_1", "1"), ("srgnn-x", "–")],
    ["a < b, in #1", "second"],
    breaks=[1],
)


def test_text() -> None:
    assert render(TABLE).split("\n") == [
        "50% & more_of_it",
        "",
        "model                    x [y]",
        "──────────────────────────────",
        "a|b         -0.10 [-0.2, +0.3]",
        "",
        "[bold]c_1                    1",
        "srgnn-x                      –",
        "",
        "a < b, in #1",
        "second",
    ]


def test_text_keeps_its_width_and_its_numbers_whole() -> None:
    wide = Table("t " * 90, ("name " * 5, *"abcd"), [("word " * 40, *["-0.12 [-0.34, +0.56]"] * 4)], ["note " * 60])
    text = render(wide)
    assert max(map(len, text.split("\n"))) <= WIDTH
    assert text.count("-0.12 [-0.34, +0.56]") == 4


def test_markdown() -> None:
    assert render(TABLE, "markdown").split("\n") == [
        r"**50% & more\_of\_it**",
        "",
        "| model | x [y] |",
        "| --- | ---: |",
        r"| a\|b | -0.10 [-0.2, +0.3] |",
        r"| [bold]c\_1 | 1 |",
        "| srgnn-x | – |",
        "",
        r"a \< b, in #1",
        "",
        "second",
    ]


def test_latex() -> None:
    assert render(TABLE, "latex").split("\n") == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50\% \& more\_of\_it}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"model & x [y] \\",
        r"\midrule",
        r"a$|$b & $-$0.10 [$-$0.2, +0.3] \\",
        r"\midrule",
        r"{[bold]c\_1} & 1 \\",
        r"srgnn-x & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\begin{minipage}{\linewidth}\footnotesize",
        r"\par\smallskip a $<$ b, in \#1",
        r"\par\smallskip second",
        r"\end{minipage}",
        r"\end{table}",
    ]
    assert r"\textbackslash{}x\{\}\textasciitilde{}\$" in render(Table("\\x{}~$", (), []), "latex")


def test_wrong_use() -> None:
    with pytest.raises(DissectError, match="no format 'html'; valid: text, markdown, latex"):
        render(TABLE, "html")
    with pytest.raises(ValueError, match="row 1 has 1 cells, the table 2 columns"):
        Table("", ("a", "b"), [("1", "2"), ("3",)])


def test_numbers() -> None:
    assert [number(1.005e3), number(math.nan), number(2, ".0f")] == ["1005.00", "–", "2"]
    assert [signed(0.004), signed(-0.004), signed(-0.004, 3), signed(1, unit="%"), signed(math.nan, unit="%")] == [
        "0.00", "0.00", "-0.004", "+1.00%", "–",
    ]  # fmt: skip
    assert [p_value(0.00099), p_value(0.0314159), p_value(1), p_value(math.nan)] == ["< 0.001", "0.031", "1.000", "–"]
    assert [span([1200]), span([3, 1, 2]), span([0.001, 0.001])] == ["1,200", "1 to 3", "0.001"]
