"""Matchers in Alertmanager's spelling."""

from __future__ import annotations

import pytest

from meterline.schemas.matchers import MatcherError, failing, parse_matcher

LABELS = {"severity": "error", "scope": "key:acme/k-1", "scope_type": "key"}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("severity=error", True),
        ('severity="error"', True),
        ("severity = error", True),
        ("severity=err", False),
        ("severity!=error", False),
        ("severity=~err.*|warning", True),
        ("severity=~err", False),
        ("severity!~warn.*", True),
        ("project=", True),
        ('project!=""', False),
        ("scope=key:acme/k-1", True),
        ("scope=~key:acme/.*", True),
    ],
)
def test_matchers_hold_as_on_call_knows_them(text: str, *, holds: bool) -> None:
    """An expression matches the whole value; a missing label is the empty text."""
    assert (failing([text], LABELS) == "") is holds


def test_all_matchers_must_hold() -> None:
    """The first that does not is named."""
    assert failing(["severity=error", "scope_type=user"], LABELS) == "scope_type=user"
    assert failing([], LABELS) == ""


@pytest.mark.parametrize("text", ["", "severity", "=error", "loud=1", "severity=~("])
def test_what_is_no_matcher_is_refused(text: str) -> None:
    """A form, a known label and a regular expression that can be read are asked for."""
    with pytest.raises(MatcherError):
        parse_matcher(text)
