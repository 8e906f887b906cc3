"""Tables on a terminal: every command that prints columns prints them through here.

    name       never dropped; folded onto more lines where the width does not suffice
    text       prose (a reason, an error): as a name
    money      never cut; dropped only if it has a priority
    measure    a number: never cut; dropped by priority
    fact       a time, a state, an id: never cut; dropped by priority, if it has one

Where the width does not suffice, columns are dropped in the order of their priority, the lowest
first; the last line says which. Where even the columns that are never dropped do not fit side by
side, each row is printed as lines of `column  value`.

Values come from tenants: they are never read as markup, and unprintable characters are shown as
escapes (`app.printable`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from meterline.app.printable import visible

Cell: TypeAlias = str | Text
"""A value; as `Text` with a style, which `styled` makes."""

GAP = 2
"""Spaces between columns."""
FOLDED_WIDTH = 20
"""Columns are dropped before a name or prose is folded to less: 20 holds most names on one line."""
FOLDED_WIDTH_ALONE = 28
"""The same where no other column folds: `department:acme/engineering` has 27 characters."""
FOLDED_WIDTH_MIN = 8
"""With less, a folded name cannot be read: rows are printed as lines instead."""


class Role(Enum):
    """What a column holds, and so what may happen to it on a narrow terminal."""

    NAME = "name"
    TEXT = "text"
    MONEY = "money"
    MEASURE = "measure"
    FACT = "fact"

    @property
    def folds(self) -> bool:
        """Whether its values may be spread over several lines."""
        return self in {Role.NAME, Role.TEXT}


@dataclass(frozen=True, slots=True)
class Column:
    """One column; made by `name`, `text`, `money`, `measure` or `fact`."""

    title: str
    role: Role
    priority: int | None = None
    """The lowest is dropped first; None is never dropped."""
    right: bool = False


def name(title: str) -> Column:
    """What a row is about."""
    return Column(title, Role.NAME)


def text(title: str, priority: int | None = None) -> Column:
    """Prose."""
    return Column(title, Role.TEXT, priority)


def money(title: str, priority: int | None = None) -> Column:
    """An amount."""
    return Column(title, Role.MONEY, priority, right=True)


def measure(title: str, priority: int | None = None) -> Column:
    """A number."""
    return Column(title, Role.MEASURE, priority, right=True)


def fact(title: str, priority: int | None = None) -> Column:
    """A time, a state or an id."""
    return Column(title, Role.FACT, priority)


def styled(value: str, style: str) -> Text:
    """A value in a colour."""
    return Text(visible(value), style)


class Layout(NamedTuple):
    """Which columns are shown, and how wide."""

    widths: dict[int, int]
    """By the column's position, in the order of the columns."""
    dropped: tuple[int, ...]


@dataclass(slots=True)
class TerminalTable:
    """Rows under headings; printed by `console.print(table)`."""

    columns: Sequence[Column]
    title: str = ""
    caption: str = ""
    complete_in: str = "--json"
    """The option whose output has every column."""
    heading: bool = True
    indent: int = 0
    rows: list[tuple[Text, ...]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """Add a row of one cell per column."""
        assert len(cells) == len(self.columns)
        self.rows.append(tuple(map(_cell, cells)))

    def layout(self, width: int) -> Layout | None:
        """What fits into a width; None if the columns that are never dropped do not."""
        spans = [self._span(number, column) for number, column in enumerate(self.columns)]
        shown = list(range(len(spans)))
        room = width - self.indent
        while _total(spans[each].comfortable for each in shown) > room:
            candidates = [each for each in shown if self.columns[each].priority is not None]
            if not candidates:
                break
            shown.remove(min(candidates, key=lambda each: (self._priority(each), -each)))
        if _total(spans[each].least for each in shown) > room:
            return None
        dropped = tuple(each for each in range(len(spans)) if each not in shown)
        return Layout(_widths(self.columns, {each: spans[each] for each in shown}, room), dropped)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the width of a console."""
        del console
        width = options.max_width
        if self.title:
            yield _line(self.title, "italic")
        layout = self.layout(width)
        body: RenderableType = (
            self._as_lines(width) if layout is None else self._side_by_side(layout)
        )
        yield Padding(body, (0, 0, 0, self.indent)) if self.indent else body
        if self.caption:
            yield _line(self.caption, "dim")
        titles = [self.columns[each].title for each in layout.dropped] if layout else []
        # A column without a title draws what another column says.
        if names := ", ".join(filter(None, titles)):
            yield _line(
                f"not shown at {width} columns: {names}; "
                f"{self.complete_in} or a wider terminal has them",
                "dim",
            )

    def _priority(self, number: int) -> int:
        return self.columns[number].priority or 0

    def _span(self, number: int, column: Column) -> _Span:
        title = visible(column.title) if self.heading else ""
        values = max((cell_len(row[number].plain) for row in self.rows), default=0)
        longest = max(values, cell_len(title))
        # A heading of several words may stand on several lines; a value may not.
        word = max(values, *(cell_len(each) for each in title.split() or [""]))
        if not column.role.folds:
            return _Span(word, word, longest)
        alone = sum(each.role.folds for each in self.columns) == 1
        comfortable = min(longest, FOLDED_WIDTH_ALONE if alone else FOLDED_WIDTH)
        return _Span(min(longest, FOLDED_WIDTH_MIN), comfortable, longest)

    def _side_by_side(self, layout: Layout) -> Table:
        table = Table(box=None, show_header=self.heading, padding=(0, GAP, 0, 0), pad_edge=False)
        for number, width in layout.widths.items():
            column = self.columns[number]
            table.add_column(
                Text(visible(column.title)),
                width=width,
                justify="right" if column.right else "left",
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(row[number] for number in layout.widths))
        return table

    def _as_lines(self, width: int) -> Table:
        room = width - self.indent - GAP
        labels = [visible(column.title) for column in self.columns]
        whole = (
            cell_len(cell.plain)
            for row in self.rows
            for column, cell in zip(self.columns, row, strict=True)
            if not column.role.folds
        )
        # A label is folded before an amount is.
        label = max(map(cell_len, labels))
        label = max(min(label, room - max(whole, default=0)), FOLDED_WIDTH_MIN)
        table = Table(box=None, show_header=False, padding=(0, GAP, 0, 0), pad_edge=False)
        table.add_column(width=label, overflow="fold")
        table.add_column(width=max(room - label, 1), overflow="fold")
        for number, row in enumerate(self.rows):
            if number:
                table.add_row("", "")
            for title, cell in zip(labels, row, strict=True):
                table.add_row(Text(title, "bold"), cell)
        return table


def labelled_lines(rows: Iterable[tuple[str, str]]) -> TerminalTable:
    """Labels and what they stand for, indented, without headings."""
    table = TerminalTable([name("label"), text("content")], heading=False, indent=2)
    for row in rows:
        table.add(*row)
    return table


class _Span(NamedTuple):
    """Widths of a column in cells."""

    least: int
    comfortable: int
    longest: int
    """Of its longest value or heading: more is of no use."""


def _cell(cell: Cell) -> Text:
    if isinstance(cell, str):
        return Text(visible(cell))
    if cell.plain.isprintable():
        return cell
    return Text(visible(cell.plain), cell.style)


def _line(value: str, style: str) -> Text:
    return Text(visible(value), style, overflow="fold", no_wrap=False)


def _total(widths: Iterable[int]) -> int:
    """Cells that columns of some widths take side by side."""
    found = list(widths)
    return sum(found) + GAP * max(len(found) - 1, 0)


def _widths(columns: Sequence[Column], spans: dict[int, _Span], room: int) -> dict[int, int]:
    """Share the room that is left: names and prose first, then headings of several words."""
    start = (
        "comfortable" if _total(each.comfortable for each in spans.values()) <= room else "least"
    )
    widths = {number: getattr(span, start) for number, span in spans.items()}
    left = room - _total(widths.values())
    for folds in (True, False):
        lacking = [each for each in spans if columns[each].role.folds is folds]
        while left and (
            lacking := [each for each in lacking if widths[each] < spans[each].longest]
        ):
            # The narrowest first, so that a long name does not starve a short one.
            widths[min(lacking, key=lambda each: widths[each])] += 1
            left -= 1
    return widths
