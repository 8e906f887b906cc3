"""Scopes have one spelling."""

from __future__ import annotations

import pytest

from meterline.schemas.scopes import Scope, ScopeError, ScopeType, parse_scope, scopes_of


@pytest.mark.parametrize(
    "text",
    [
        "organisation:acme",
        "department:acme/research",
        "key:acme/k-17",
        "user:acme/ana@acme.test",
        "project:acme/a/b:c",  # only the organisation is restricted
    ],
)
def test_a_scope_reads_back_as_it_was_written(text: str) -> None:
    """Parsing and spelling are inverse."""
    assert str(parse_scope(text)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("acme", "is not a scope"),
        ("team:acme/x", "is not a scope"),
        ("organisation:acme/x", "has no '/'"),
        ("department:acme", "1 to 200 printable"),
        ("department:/x", "1 to 64"),
        ("key:acme/a\nb", "printable"),
        ("key:acme/" + "k" * 201, "1 to 200"),
    ],
)
def test_a_bad_scope_is_refused_with_the_reason(text: str, complaint: str) -> None:
    """A misspelt scope is refused with what is wrong with it."""
    with pytest.raises(ScopeError, match=complaint):
        parse_scope(text)


def test_an_event_has_at_most_five_scopes_and_no_empty_ones() -> None:
    """An absent department is unassigned; an absent project or user is no scope at all."""
    assert scopes_of("acme", "", "", "", "k1") == (
        "organisation:acme",
        "department:acme/unassigned",
        "key:acme/k1",
    )
    assert len(scopes_of("acme", "d", "p", "u", "k1")) == 5


def test_the_type_is_taken_apart() -> None:
    """A parsed scope says its type, organisation and identifier."""
    assert parse_scope("key:acme/k") == Scope(ScopeType.KEY, "acme", "k")
