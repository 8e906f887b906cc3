"""The table that every command prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from meterline.app import tables
from meterline.app.printable import markup, visible
from meterline.app.tables import TerminalTable

NASTY = (
    "[/foo]",
    "[bold]",
    "[link=https://evil.example]click[/link]",
    "[@click=quit]",
    "trailing\\",
    "\\[red]",
    ":boom:",
    "two\nlines",
    "\x1b[2J\x1b[31mforged",
    "\r$0.00",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "tab\there",
    "\ud800",
    "\x9b31m",
)
FRAGMENTS = st.sampled_from(
    (*NASTY, "[", "]", "[/", "\\", ":", "acme", " ", "研究", "a" * 60, "\x07", "\u2028")
)
NAMES = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=70),
    st.lists(FRAGMENTS, max_size=5).map("".join),
)
WIDTHS = st.integers(min_value=20, max_value=210)
AMOUNTS = st.integers(min_value=0, max_value=10**12).map(lambda cents: f"${cents / 100:,.2f}")


def printed(table: TerminalTable, width: int) -> str:
    """The characters that a terminal of some width gets."""
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def sample(rows: list[tuple[str, str]], titles: tuple[str, ...] = ("name",)) -> TerminalTable:
    """Names, amounts, and measures that may go."""
    table = TerminalTable(
        [
            *(tables.name(title) for title in titles),
            tables.money("cost"),
            tables.measure("requests", 2),
            tables.measure("output tokens", 1),
        ]
    )
    for name, amount in rows:
        table.add(*(name for _ in titles), amount, "1,234,567", "9,876,543,210")
    return table


@given(st.lists(st.tuples(NAMES, AMOUNTS), min_size=1, max_size=4), WIDTHS)
def test_a_tenants_name_neither_crashes_nor_forges_the_screen(
    rows: list[tuple[str, str]], width: int
) -> None:
    """Any name is printed as characters: no markup, no control character, no line of its own."""
    text = printed(sample(rows, titles=("name", "other [/name]")), width)
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(cell_len(line) <= width for line in text.split("\n"))
    packed = "".join(text.split())
    for name, amount in rows:
        assert amount in packed
        if width >= 200 and cell_len(visible(name)) <= 60:
            assert visible(name).strip() in text


@given(NAMES, NAMES)
def test_a_message_shows_values_as_they_are(name: str, reason: str) -> None:
    """A message with colours around a tenant's text shows the text, character by character."""
    console = Console(width=10_000, highlight=False)
    with console.capture() as capture:
        text = markup("[bold]{name}[/]: {reason} [dim]end[/]", name=name, reason=reason)
        console.print(text, soft_wrap=True)
    assert capture.get() == f"{visible(name)}: {visible(reason)} end\n"


def test_a_value_takes_the_style_around_its_field() -> None:
    """The colour of a field is the colour of its value, and of nothing beside it."""
    text = markup("at [bold red]{count}[/] of {total}", count=17, total=20)
    assert text.plain == "at 17 of 20"
    assert [(span.start, span.end, str(span.style)) for span in text.spans] == [(3, 5, "bold red")]


def test_the_least_important_columns_go_first_and_are_named() -> None:
    """A narrow terminal drops measures by priority and says which, and where they are."""
    table = sample([("acme", "$1,234.56")])
    assert "not shown" not in printed(table, 60)
    narrow = printed(table, 40)
    assert "not shown at 40 columns: output tokens; --json or" in " ".join(narrow.split())
    assert "requests" in narrow.splitlines()[0]
    narrower = " ".join(printed(table, 20).split())
    assert "not shown at 20 columns: requests, output tokens; --json or" in narrower


def test_what_does_not_fit_side_by_side_is_printed_as_lines() -> None:
    """Where names and money do not fit, a row becomes lines, and nothing of it is missing."""
    table = sample([("a" * 30, "$1,234.56"), ("b", "$2.00")], titles=("first", "second", "third"))
    lines = printed(table, 30).splitlines()
    assert lines[0].startswith("first")
    assert "cost           $1,234.56" in {line.rstrip() for line in lines}


def test_wide_characters_are_counted_by_their_cells() -> None:
    """A Chinese name takes two cells a character; a line is not longer than the terminal."""
    table = sample([("研究開発部門第一グループ国際戦略企画室人工知能応用課", "$1,234.56")])
    for width in (24, 40, 60, 80):
        lines = printed(table, width).splitlines()
        assert all(cell_len(line) <= width for line in lines)


def test_a_heading_of_several_words_gives_way_before_a_column() -> None:
    """A long heading stands on several lines where one line would cost a column."""
    table = TerminalTable([tables.name("scope"), tables.money("would have been refused")])
    table.add("department:acme/research", "$1.00")
    lines = printed(table, 36).splitlines()
    assert lines[-1].split() == ["department:acme/research", "$1.00"]
