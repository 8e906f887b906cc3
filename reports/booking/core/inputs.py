"""The frozen inputs of a close: all that its figures depend on besides the booked lines; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from meterline.reports.booking.core.currency import Exchange
from meterline.schemas.finance import FINANCE_ID, FinancePolicy
from meterline.schemas.policy import PolicyObject, ScopePolicy
from meterline.schemas.scopes import ScopeType, parse_scope

MANIFEST = "manifest.json"
"""The file of a closed month that lists its files, its inputs and their hashes."""


class DepartmentInput(msgspec.Struct, frozen=True):
    """What policy said of a department."""

    organisation: str
    department: str
    name: str
    cost_center: str
    budget_nano_usd: int | None


class OriginInput(msgspec.Struct, frozen=True):
    """A month whose events were booked, and how far into the log."""

    period: str
    start_ms: int
    end_ms: int
    positions: dict[str, int]
    """Source partition to the first position that is not booked: see `closed_lines`."""


class PriceInput(msgspec.Struct, frozen=True):
    """Prices of one model and context tier in `[from_ms, to_ms)`, pico-USD per token.

    The order is input, output, cache read, cache write, cache write 1 h, input audio, output
    audio.
    """

    provider: str
    model: str
    service_tier: str
    tier_floor: int
    from_ms: int
    to_ms: int
    contracted: tuple[int, int, int, int, int, int, int]
    listed: tuple[int, int, int, int, int, int, int] | None
    """By the shipped list prices; None where they do not know the model."""


class FrozenInputs(msgspec.Struct, frozen=True):
    """Everything that the files of a close depend on besides its lines."""

    period: str
    time_zone: str
    start_ms: int
    end_ms: int
    run: int
    revision: int
    draft: bool
    closed_at_ms: int
    """When the close began: the only time in its files."""
    price_version: str
    exchange: Exchange
    finance: dict[str, object]
    """The finance policy as published."""
    organisations: dict[str, str]
    """Id to name."""
    departments: list[DepartmentInput]
    origins: list[OriginInput]
    booked_runs: list[int]
    """Closed runs of earlier revisions of this month, which its bill contains."""
    prices: list[PriceInput]

    @property
    def policy(self) -> FinancePolicy:
        """The finance policy."""
        return FinancePolicy.model_validate(self.finance)


class CostMapping(NamedTuple):
    """Organisations and departments of the policy, and what finance decided."""

    finance: FinancePolicy
    organisations: dict[str, str]
    departments: list[DepartmentInput]


def mapping_of(policies: Mapping[str, PolicyObject]) -> CostMapping:
    """The part of the published policy that a close needs."""
    finance = policies.get(FINANCE_ID)
    organisations: dict[str, str] = {}
    departments: list[DepartmentInput] = []
    for item in policies.values():
        if not isinstance(item, ScopePolicy):
            continue
        scope = parse_scope(item.scope)
        if scope.type is ScopeType.ORGANISATION:
            organisations[scope.organisation] = item.name
        elif scope.type is ScopeType.DEPARTMENT:
            departments.append(
                DepartmentInput(
                    scope.organisation,
                    scope.identifier,
                    item.name,
                    item.cost_center,
                    item.budget.month_nano_usd,
                )
            )
    departments.sort(key=lambda each: (each.organisation, each.department))
    return CostMapping(
        finance if isinstance(finance, FinancePolicy) else FinancePolicy(),
        dict(sorted(organisations.items())),
        departments,
    )


def encode_inputs(inputs: FrozenInputs) -> bytes:
    """The inputs as JSON, always the same for the same."""
    return msgspec.json.format(msgspec.json.encode(inputs, order="deterministic"), indent=1) + b"\n"


def decode_inputs(text: str | bytes) -> FrozenInputs:
    """Read what `encode_inputs` wrote; `msgspec.ValidationError` if it is not that."""
    return msgspec.json.decode(text, type=FrozenInputs)


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
