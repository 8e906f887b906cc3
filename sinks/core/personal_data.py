"""Personal data kept apart: e-mail, address and software of a caller become one number.

The number is a keyed hash whose key this process makes at its start and forgets at its end: the
same person has another number after a restart, and once the row in `persons` is deleted, not even
the operator can tell whose the number was.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from meterline.schemas.tables import PERSONS

_KEY = secrets.token_bytes(32)
_COLUMNS = ("user_email", "client_ip", "user_agent")


class PersonalData(NamedTuple):
    """A row of `persons` without the time."""

    organisation: str
    person: int
    user: str
    user_email: str
    client_ip: str
    user_agent: str


# The callers of an hour; a miss costs 2 us.
@lru_cache(maxsize=65_536)
def personal_data_of(
    organisation: str, user: str, email: str, address: str, agent: str
) -> PersonalData:
    """Personal data with its number, 0 where nothing personal was sent."""
    number = 0
    if email or address or agent:
        parts = (organisation, user, email, address, agent)
        # Lengths first: no two callers are the same text.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=_KEY).digest()
        number = int.from_bytes(digest) or 1
    return PersonalData(organisation, number, user, email, address, agent)


def take_personal_data(columns: dict[str, Sequence[Any]]) -> frozenset[PersonalData]:
    """Replace the personal columns by `person`, a number per row.

    A column that is empty in every row may be missing.

    Returns:
        The personal data that the numbers stand for.
    """
    personal = [columns.pop(name, None) for name in _COLUMNS]
    if not any(personal):
        return frozenset()
    organisations = columns["organisation"]
    nothing = [""] * len(organisations)
    users = columns.get("user", nothing)
    rows = zip(organisations, users, *(values or nothing for values in personal), strict=True)
    found = [personal_data_of(*row) for row in rows]
    columns["person"] = [each.person for each in found]
    return frozenset(each for each in found if each.person)


def personal_data_rows(
    personal_data: Iterable[PersonalData], seen_ms: int
) -> list[tuple[Any, ...]]:
    """Rows in the column order of the table."""
    rows = [(*each, seen_ms) for each in personal_data]
    assert all(len(row) == len(PERSONS.columns) for row in rows)
    return rows
