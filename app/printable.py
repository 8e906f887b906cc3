"""Text of tenants, relays and providers made safe to print on a terminal.

A department may be called `[/foo]` or `:boom:`, or carry an escape sequence that clears the screen.
Printed as it is, the first crashes rich's markup, the second becomes an emoji, and the third
forges what an operator reads. `rich.markup.escape` does not suffice: two names that are harmless
alone, `[dim` and `x]`, are markup together. So values never stand in markup: they are put in after
it is parsed.
"""

from __future__ import annotations

import re

from rich.text import Text

_FIELD = re.compile(r"\{(\w+)\}", re.ASCII)


def visible(text: str) -> str:
    r"""The text on one line: control, format and separator characters as `\n`, `\x1b`, `\u202e`.

    A format character turns the direction of what follows, or makes two names look alike, so they
    are shown too; the plain space is the only separator that stays.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def markup(template: str, **values: object) -> Text:
    """A message in rich markup with `{name}` fields; a value takes the style around its field.

    Args:
        template: words of Meterline, with markup.
        values: what the fields hold, printed character by character.
    """
    parsed = Text.from_markup(template, emoji=False)
    done = Text()
    end = 0
    for found in _FIELD.finditer(parsed.plain):
        done.append_text(parsed[end : found.start()])
        value = Text(visible(str(values[found[1]])))
        for span in parsed[found.start() : found.end()].spans:
            value.stylize(span.style)
        done.append_text(value)
        end = found.end()
    return done.append_text(parsed[end:])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
