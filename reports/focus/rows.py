"""FOCUS 1.4 Cost and Usage: one row per day, key, model and token class.

A line's cost is exact; its token classes share it by their unit prices, so that they sum to it.
Where the frozen prices explain the cost (but for one rounding per event), `x_CostSplit` says
"priced"; otherwise the classes share by proportion and it says "allocated".

Columns: https://focus.finops.org/focus-specification/ version 1.4. Tokens have no column of their
own there: they are ConsumedQuantity in "Tokens", and PricingQuantity in millions of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from backends.clickhouse import Client
from reports.close.allocation import allocate, round_parts
from reports.close.csv_file import text_cell
from reports.close.inputs import DepartmentInput, FrozenInputs, PriceInput
from reports.close.months import day_start_ms
from schemas.money import NanoUsd, divide_half_even, nano_from_usd, usd_text
from schemas.periods import rfc3339

ISSUER = "Meterline"
COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "HostProviderName", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice",
    "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity",
    "PricingUnit", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName",
    "ServiceProviderName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails",
    "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags",
    "x_ContextTierFloor", "x_CostCenter", "x_CostSplit", "x_Department", "x_Environment",
    "x_ExchangeRate", "x_OriginPeriod", "x_PriceVersion", "x_Project", "x_ReportingCost",
    "x_ReportingCurrency", "x_RequestCount", "x_ServiceTier", "x_Team", "x_TokenType",
    "x_UnpricedRequestCount",
)  # fmt: skip

# Class name, meter, and the place of its price in PriceInput.
TOKEN_CLASSES = (
    ("input", "Input Tokens", 0),
    ("cache_read", "Cached Input Tokens", 2),
    ("cache_write", "Cache Write Tokens", 3),
    ("cache_write_1h", "Cache Write 1h Tokens", 4),
    ("input_audio", "Input Audio Tokens", 5),
    ("output", "Output Tokens", 1),
    ("output_audio", "Output Audio Tokens", 6),
)
PRICED, ALLOCATED = "priced", "allocated"
_PICO_PER_NANO = 1000
_MILLION = 6


class Line(NamedTuple):
    """One booked line."""

    day: date
    organisation: str
    department: str
    project: str
    team: str
    environment: str
    key: str
    key_name: str
    model: str
    provider: str
    service_tier: str
    tier_floor: int
    price_version: str
    correction_reason: str
    tags: str
    kind: str
    origin_period: str
    events: int
    unpriced: int
    tokens: tuple[int, ...]
    """By TOKEN_CLASSES."""
    cost_nano_usd: NanoUsd


def read_lines(client: Client, run: int, organisation: str, day: date) -> list[Line]:
    """The lines of one organisation and day, in one order for ever."""
    rows = client.query(
        """
SELECT department, project, team, environment, key, key_name, model, provider, service_tier,
       tier_floor, price_version, correction_reason, tags, kind, origin_period, events,
       unpriced_events, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
       cache_write_1h_tokens, input_audio_tokens, output_audio_tokens, toString(cost_usd)
FROM closed_lines
WHERE run = {run:UInt64} AND organisation = {organisation:String} AND day = {day:Date}
ORDER BY department, key, model, kind, origin_period, project, team, environment, provider,
         service_tier, tier_floor, price_version, correction_reason, tags""",
        {"run": run, "organisation": organisation, "day": day},
    )
    return [
        Line._make((day, organisation, *row[:17], _classes(row[17:24]), nano_from_usd(row[24])))
        for row in rows
    ]


def read_line_days(client: Client, run: int) -> list[tuple[str, date]]:
    """Organisations and days that a run has lines of."""
    rows = client.query(
        "SELECT DISTINCT organisation, day FROM closed_lines WHERE run = {run:UInt64} "
        "ORDER BY organisation, day",
        {"run": run},
    )
    return [(row[0], row[1]) for row in rows]


def _classes(counts: Sequence[int]) -> tuple[int, ...]:
    """Inclusive counts, as read above, to classes without overlap, as TOKEN_CLASSES has them."""
    given, out, read, written, written_1h, audio_in, audio_out = counts
    uncached = given - read - written - written_1h
    # Audio beyond the uncached tokens is cached audio, as in rating.
    audio = min(audio_in, uncached) if audio_in >= 0 else max(audio_in, uncached)
    return (uncached - audio, read, written, written_1h, audio, out - audio_out, audio_out)


class Split(NamedTuple):
    """How a line's cost falls on its token classes."""

    costs: list[NanoUsd]
    how: str


def split_cost(line: Line, price: PriceInput | None) -> Split:
    """Divide the exact cost; the parts sum to it."""
    if price is None or line.unpriced == line.events:
        return Split(_by_weight(line.cost_nano_usd, line.tokens), ALLOCATED)
    pico = [
        tokens * price.contracted[place]
        for tokens, (_, _, place) in zip(line.tokens, TOKEN_CLASSES, strict=True)
    ]
    # One rounding per event, of at most half a nano-dollar.
    if abs(sum(pico) - line.cost_nano_usd * _PICO_PER_NANO) <= _PICO_PER_NANO * abs(line.events):
        used = [at for at, tokens in enumerate(line.tokens) if tokens]
        parts = round_parts([pico[at] for at in used], _PICO_PER_NANO, line.cost_nano_usd)
        costs = [0] * len(pico)
        for at, part in zip(used, parts, strict=True):
            costs[at] = part
        return Split(costs, PRICED) if used else Split([line.cost_nano_usd, *costs[1:]], PRICED)
    return Split(_by_weight(line.cost_nano_usd, pico), ALLOCATED)


def _by_weight(cost: int, weights: list[int] | tuple[int, ...]) -> list[int]:
    if any(weights) and min(weights) >= 0:
        return allocate(cost, weights)
    if any(weights) and max(weights) <= 0:
        return allocate(cost, [-each for each in weights])
    return [cost, *([0] * (len(weights) - 1))]


class RowMaker:
    """Lines of one close to FOCUS rows."""

    def __init__(self, inputs: FrozenInputs) -> None:
        """Take the frozen inputs."""
        self._inputs = inputs
        self._departments: dict[tuple[str, str], DepartmentInput] = {
            (each.organisation, each.department): each for each in inputs.departments
        }
        self._prices: dict[tuple[str, str, str, int], list[PriceInput]] = {}
        for price in inputs.prices:
            key = (price.provider, price.model, price.service_tier, price.tier_floor)
            self._prices.setdefault(key, []).append(price)
        self._period = (_instant(inputs.end_ms), _instant(inputs.start_ms))

    def rows(self, line: Line) -> Iterator[list[str]]:
        """One row per token class that the line has."""
        inputs = self._inputs
        price = self._price(line)
        split = split_cost(line, price)
        if split.how != PRICED:
            price = None  # quantity times unit price would not be the cost
        common = self._common(line, split.how)
        first = True
        for at, (name, meter, place) in enumerate(TOKEN_CLASSES):
            tokens, cost = line.tokens[at], split.costs[at]
            if not tokens and not cost and (at or any(line.tokens)):
                continue
            usd = usd_text(cost)
            contracted = _unit(price.contracted[place]) if price else ""
            # Where the list prices do not know the model, what is charged is its list price.
            listed = price.listed[place] if price and price.listed else None
            listed_cost = (
                cost if listed is None else divide_half_even(tokens * listed, _PICO_PER_NANO)
            )
            list_unit = contracted if listed is None else _unit(listed)
            row = dict(common)
            row |= {
                "BilledCost": usd,
                "ContractedCost": usd,
                "EffectiveCost": usd,
                "PricingCurrencyEffectiveCost": usd,
                "ListCost": usd_text(listed_cost),
                "ConsumedQuantity": str(tokens),
                "PricingQuantity": _millions(tokens),
                "ContractedUnitPrice": contracted,
                "PricingCurrencyContractedUnitPrice": contracted,
                "ListUnitPrice": list_unit,
                "PricingCurrencyListUnitPrice": list_unit,
                "ChargeDescription": text_cell(f"{line.model}, {meter.lower()}"),
                "SkuMeter": meter,
                # A price id without a price would be a promise; unpriced usage has neither.
                "SkuPriceId": text_cell(_sku_price(line, name, price)) if price else "",
                "x_TokenType": name,
                "x_ReportingCost": inputs.exchange.exact_text(cost),
                # Once per line, so that the column can be summed.
                "x_RequestCount": str(line.events) if first else "0",
                "x_UnpricedRequestCount": str(line.unpriced) if first else "0",
            }
            first = False
            yield [row[column] for column in COLUMNS]

    def _common(self, line: Line, how: str) -> dict[str, str]:
        inputs = self._inputs
        department = self._departments.get((line.organisation, line.department))
        zone = inputs.time_zone
        seller = text_cell(line.provider) or ISSUER
        tags = json.loads(line.tags) if line.tags else {}
        named = {"project": line.project, "environment": line.environment, "team": line.team}
        tags |= {name: value for name, value in named.items() if value}
        return {
            "BillingAccountId": text_cell(line.organisation),
            "BillingAccountName": text_cell(
                inputs.organisations.get(line.organisation, "") or line.organisation
            ),
            "BillingAccountType": "Organisation",
            "BillingCurrency": "USD",
            "BillingPeriodEnd": self._period[0],
            "BillingPeriodStart": self._period[1],
            "ChargeCategory": "Usage",
            "ChargeClass": "" if line.kind == "usage" else "Correction",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": _instant(day_start_ms(line.day, zone)),
            "ChargePeriodEnd": _instant(day_start_ms(line.day + timedelta(days=1), zone)),
            "ConsumedUnit": "Tokens",
            "HostProviderName": seller,
            "InvoiceId": text_cell(f"{line.organisation}-{inputs.period}-r{inputs.revision}"),
            "InvoiceIssuerName": ISSUER,
            "PricingCategory": "Standard",
            "PricingCurrency": "USD",
            "PricingUnit": "1000000 Tokens",
            "ResourceId": text_cell(line.key),
            "ResourceName": text_cell(line.key_name or line.key),
            "ResourceType": "API Key",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "Model inference",
            "ServiceProviderName": seller,
            "ServiceSubcategory": "Generative AI",
            "SkuId": text_cell(f"{line.provider}/{line.model}"),
            "SkuPriceDetails": "",
            "SubAccountId": text_cell(line.department),
            "SubAccountName": text_cell((department.name if department else "") or line.department),
            "SubAccountType": "Department",
            "Tags": json.dumps(tags, sort_keys=True, separators=(",", ":")),
            "x_ContextTierFloor": str(line.tier_floor),
            "x_CostCenter": text_cell(department.cost_center) if department else "",
            "x_CostSplit": how,
            "x_Department": text_cell(line.department),
            "x_Environment": text_cell(line.environment),
            "x_ExchangeRate": inputs.exchange.rate,
            "x_OriginPeriod": line.origin_period,
            "x_PriceVersion": text_cell(line.price_version),
            "x_Project": text_cell(line.project),
            "x_ReportingCurrency": inputs.exchange.currency,
            "x_ServiceTier": line.service_tier or "standard",
            "x_Team": text_cell(line.team),
        }

    def _price(self, line: Line) -> PriceInput | None:
        key = (line.provider, line.model, line.service_tier, line.tier_floor)
        at_ms = day_start_ms(line.day, self._inputs.time_zone)
        best: PriceInput | None = None
        for price in self._prices.get(key, ()):
            if price.from_ms <= at_ms < price.to_ms:
                return price
            best = best or price
        return best


def _sku_price(line: Line, name: str, price: PriceInput) -> str:
    since = _instant(price.from_ms)[:10]
    tier = line.service_tier or "standard"
    return f"{line.provider}/{line.model}/{tier}/{line.tier_floor}/{name}/{since}"


# A month has some dozens of instants and prices, and a million rows.
@lru_cache(maxsize=4_096)
def _instant(time_ms: int) -> str:
    return rfc3339(time_ms)[:19] + "Z"


@lru_cache(maxsize=4_096)
def _unit(pico_per_token: int) -> str:
    """Pico-USD per token are micro-USD per million tokens."""
    return _plain(Decimal(pico_per_token).scaleb(-_MILLION))


def _millions(tokens: int) -> str:
    return _plain(Decimal(tokens).scaleb(-_MILLION))


def _plain(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
