"""Does a value show itself in a notebook, with what users named escaped?"""

from __future__ import annotations

from spaces.shown import MOST_ROWS, Block, Shown, Table, interval_cell


class _Value(Shown):
    def __init__(self, *blocks: Block) -> None:
        self.given = blocks

    def blocks(self) -> tuple[Block, ...]:
        return self.given


def html(*blocks: Block) -> str:
    return _Value(*blocks)._repr_html_()


def test_what_users_named_is_escaped_everywhere() -> None:
    evil = "<script>alert('x')</script>"
    shown = html(evil, Table(caption=evil, columns=(evil,), rows=((evil,),)))
    assert "<script>" not in shown
    assert shown.count("&lt;script&gt;") == 4


def test_counts_stand_in_full_measures_to_four_digits_and_what_is_missing_is_a_dash() -> None:
    row = (1_234_567, 3.14159265, None, float("nan"), "word")
    shown = html(Table(caption="all kinds", columns=("a", "b", "c", "d", "e"), rows=(row,)))
    assert [cell.split("</td>")[0] for cell in shown.split('">')[1:]] == [
        "1,234,567",
        "3.142",
        "–",
        "–",
        "word",
    ]


def test_long_tables_say_how_much_more_there_is() -> None:
    rows = tuple((number,) for number in range(MOST_ROWS + 12))
    assert "and 12 more rows" in html(Table(caption="long", columns=("n",), rows=rows))
    assert "more rows" not in html(Table(caption="short", columns=("n",), rows=rows[:MOST_ROWS]))


def test_an_interval_stands_in_brackets() -> None:
    assert interval_cell((0.123456, 2.0)) == "[0.1235, 2]"
    assert interval_cell(None) is None
