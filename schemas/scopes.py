"""Scopes: what spend is counted for and policy applies to.

A scope is written as one string, the same in topics, tables, policy and on the command line:
`organisation:acme`, `department:acme/research`, `project:acme/chatbot`, `user:acme/ana@acme.test`,
`key:acme/k-17`. Identifiers are unique within their organisation.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from typing_extensions import override

from meterline.schemas.errors import MeterlineError

UNASSIGNED = "unassigned"
"""The department of an event that names none: counted and shown, never dropped."""

ORGANISATION_LENGTH_MAX = 64
IDENTIFIER_LENGTH_MAX = 200


class ScopeType(StrEnum):
    """The levels of the hierarchy, widest first."""

    ORGANISATION = "organisation"
    DEPARTMENT = "department"
    PROJECT = "project"
    USER = "user"
    KEY = "key"


class ScopeError(MeterlineError, ValueError):
    """A scope or identifier that cannot be used."""


class Scope(NamedTuple):
    """One scope, taken apart; `identifier` is empty for an organisation."""

    type: ScopeType
    organisation: str
    identifier: str = ""

    @override
    def __str__(self) -> str:
        """The one spelling used everywhere."""
        if self.type is ScopeType.ORGANISATION:
            return f"{self.type.value}:{self.organisation}"
        return f"{self.type.value}:{self.organisation}/{self.identifier}"


def is_organisation(scope: str) -> bool:
    """Whether a spelled scope is a whole organisation: the widest, so that no event is in two."""
    return scope.startswith(f"{ScopeType.ORGANISATION.value}:")


def check_organisation(name: str) -> str:
    """Return the name if it is valid in a scope.

    Raises:
        ScopeError: empty, too long, not printable, or with "/" or ":" in it.
    """
    if not name or len(name) > ORGANISATION_LENGTH_MAX:
        message = f"organisation must have 1 to {ORGANISATION_LENGTH_MAX} characters"
        raise ScopeError(message)
    if "/" in name or ":" in name or not name.isprintable():
        message = f"organisation {name!r} must be printable, without '/' and ':'"
        raise ScopeError(message)
    return name


def check_identifier(identifier: str, what: str = "identifier") -> str:
    """Return the identifier if it is valid in a scope.

    Raises:
        ScopeError: empty, too long or not printable.
    """
    if not identifier or len(identifier) > IDENTIFIER_LENGTH_MAX or not identifier.isprintable():
        message = f"{what} must have 1 to {IDENTIFIER_LENGTH_MAX} printable characters"
        raise ScopeError(message)
    return identifier


def parse_scope(text: str) -> Scope:
    """Parse a scope's one spelling.

    Raises:
        ScopeError: unknown type, or a malformed name.
    """
    head, colon, rest = text.partition(":")
    if not colon or head not in ScopeType._value2member_map_:
        kinds = ", ".join(kind.value for kind in ScopeType)
        message = f"{text!r} is not a scope; write TYPE:ORGANISATION/ID with TYPE one of {kinds}"
        raise ScopeError(message)
    kind = ScopeType(head)
    organisation, slash, identifier = rest.partition("/")
    check_organisation(organisation)
    if kind is ScopeType.ORGANISATION:
        if slash:
            message = f"{text!r}: an organisation's scope has no '/'"
            raise ScopeError(message)
        return Scope(kind, organisation)
    check_identifier(identifier, f"{text!r}: id")
    return Scope(kind, organisation, identifier)


# 65,536 combinations are about 40 MB: more keys than one worker's partitions should carry,
# and a miss costs 3 us, not correctness.
@lru_cache(maxsize=65_536)
def scopes_of(
    organisation: str, department: str, project: str, user: str, key: str
) -> tuple[str, ...]:
    """Spell the scopes that one event is counted in, at most five.

    An empty department counts as `unassigned`; an empty project or user has no scope.

    Raises:
        ScopeError: an identifier that is not valid in a scope.
    """
    check_organisation(organisation)
    named = [
        Scope(ScopeType.ORGANISATION, organisation),
        Scope(ScopeType.DEPARTMENT, organisation, check_identifier(department or UNASSIGNED)),
        Scope(ScopeType.KEY, organisation, check_identifier(key, "key")),
    ]
    if project:
        named.append(Scope(ScopeType.PROJECT, organisation, check_identifier(project)))
    if user:
        named.append(Scope(ScopeType.USER, organisation, check_identifier(user)))
    return tuple(str(scope) for scope in named)
