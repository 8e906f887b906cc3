"""FOCUS 1.4 Cost and Usage: one row per day, key, model and token class, as CSV.

A line's cost is exact; its token classes share it by their unit prices, so that they sum to it.
Where the frozen prices explain the cost (but for one rounding per event), `x_CostSplit` says
"priced"; otherwise the classes share by proportion and it says "allocated".

A month has a million rows of 61 cells, and most cells repeat. So a row is a template with holes:

    template    per day, model, price and token class; quoted once
    payer       per key and project; quoted once
    figures     tokens, costs and counts: all that is formatted per row

Columns: https://focus.finops.org/focus-specification/ version 1.4. Tokens have no column of their
own there: they are ConsumedQuantity in "Tokens", and PricingQuantity in millions of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from meterline.reports.booking.core.inputs import DepartmentInput, FrozenInputs, PriceInput
from meterline.reports.booking.core.months import day_start_ms
from meterline.reports.booking.core.values import LineKind
from meterline.reports.core.csv_text import quoted, text_cell
from meterline.reports.focus.core.focus_lines import TOKEN_CLASSES, FocusLine
from meterline.reports.focus.core.split import ALLOCATED, PICO_PER_NANO, PRICED, split_cost
from meterline.schemas.money import divide_half_even, usd_text
from meterline.schemas.periods import rfc3339

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
# What a template leaves open, in the order of COLUMNS: cells of the payer, and figures.
_HOLES = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "ConsumedQuantity", "ContractedCost",
    "EffectiveCost", "InvoiceId", "ListCost", "PricingCurrencyEffectiveCost", "PricingQuantity",
    "ResourceId", "ResourceName", "SubAccountId", "SubAccountName", "Tags", "x_CostCenter",
    "x_Department", "x_Environment", "x_Project", "x_ReportingCost", "x_RequestCount", "x_Team",
    "x_UnpricedRequestCount",
)  # fmt: skip
# Lines come key by key, so a cache that is emptied when full is missed once per key and day.
PAYERS_MAX = 10_000
MODELS_MAX = 1_000
"""Days, models, context tiers and prices seen together; a day has some dozens."""
_MICRO = 10**6


class _Payer(NamedTuple):
    """Quoted cells of who used it."""

    account: str
    account_name: str
    invoice: str
    resource: str
    resource_name: str
    sub_account: str
    sub_account_name: str
    tags: str
    cost_center: str
    environment: str
    project: str
    team: str


class _Meter(NamedTuple):
    """One token class of a model on one day."""

    template: str
    listed: int | None
    """List price in pico-USD per token; None where what is charged is the list price."""


class _Sold(NamedTuple):
    """A model on one day."""

    price: PriceInput | None
    meters: Mapping[str, tuple[_Meter, ...]]
    """By how the cost was split."""


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
        self._payers: dict[tuple[object, ...], _Payer] = {}
        self._sold: dict[tuple[object, ...], _Sold] = {}

    def rows(self, line: FocusLine) -> list[str]:
        """One row of CSV, with its line end, per token class that the line has."""
        payer, sold = self._payer(line), self._model(line)
        costs, how = split_cost(line, sold.price)
        exchange = self._inputs.exchange
        events, unpriced = str(line.events), str(line.unpriced)
        found: list[str] = []
        for at, meter in enumerate(sold.meters[how]):
            tokens, cost = line.tokens[at], costs[at]
            if not tokens and not cost and (at or any(line.tokens)):
                continue
            usd = usd_text(cost)
            listed = usd
            if meter.listed is not None:
                listed = usd_text(divide_half_even(tokens * meter.listed, PICO_PER_NANO))
            figures = (
                usd, payer.account, payer.account_name, str(tokens), usd, usd, payer.invoice,
                listed, usd, _millionths(tokens), payer.resource, payer.resource_name,
                payer.sub_account, payer.sub_account_name, payer.tags, payer.cost_center,
                payer.sub_account, payer.environment, payer.project, exchange.exact_text(cost),
                events, payer.team, unpriced,
            )  # fmt: skip
            found.append(meter.template % figures)
            # Once per line, so that the columns can be summed.
            events = unpriced = "0"
        return found

    def _payer(self, line: FocusLine) -> _Payer:
        key = (*line[1:8], line.tags)
        known = self._payers.get(key)
        if known is None:
            if len(self._payers) >= PAYERS_MAX:
                self._payers.clear()
            known = self._payers[key] = self._new_payer(line)
        return known

    def _new_payer(self, line: FocusLine) -> _Payer:
        inputs = self._inputs
        department = self._departments.get((line.organisation, line.department))
        tags = json.loads(line.tags) if line.tags else {}
        named = {"project": line.project, "environment": line.environment, "team": line.team}
        tags |= {name: value for name, value in named.items() if value}
        cells = _Payer(
            account=line.organisation,
            account_name=inputs.organisations.get(line.organisation, "") or line.organisation,
            invoice=f"{line.organisation}-{inputs.period}-r{inputs.revision}",
            resource=line.key,
            resource_name=line.key_name or line.key,
            sub_account=line.department,
            sub_account_name=(department.name if department else "") or line.department,
            tags=json.dumps(tags, sort_keys=True, separators=(",", ":")),
            cost_center=department.cost_center if department else "",
            environment=line.environment,
            project=line.project,
            team=line.team,
        )
        return _Payer._make(quoted(text_cell(cell)) for cell in cells)

    def _model(self, line: FocusLine) -> _Sold:
        key = (line.day, *line[8:13], line.kind, line.origin_period)
        known = self._sold.get(key)
        if known is None:
            if len(self._sold) >= MODELS_MAX:
                self._sold.clear()
            price = self._price(line)
            # Quantity times unit price would not be an allocated cost: such rows show no price.
            meters = {PRICED: self._meters(line, price), ALLOCATED: self._meters(line, None)}
            known = self._sold[key] = _Sold(price, meters)
        return known

    def _meters(self, line: FocusLine, price: PriceInput | None) -> tuple[_Meter, ...]:
        common = self._common(line)
        found: list[_Meter] = []
        for name, meter, place in TOKEN_CLASSES:
            contracted = _millionths(price.contracted[place]) if price else ""
            # Where the list prices do not know the model, what is charged is its list price.
            listed = price.listed[place] if price and price.listed else None
            list_unit = contracted if listed is None else _millionths(listed)
            cells = common | {
                "ChargeDescription": text_cell(f"{line.model}, {meter.lower()}"),
                "ContractedUnitPrice": contracted,
                "ListUnitPrice": list_unit,
                "PricingCurrencyContractedUnitPrice": contracted,
                "PricingCurrencyListUnitPrice": list_unit,
                "SkuMeter": meter,
                # A price id without a price would be a promise; unpriced usage has neither.
                "SkuPriceId": text_cell(_sku_price(line, name, price)) if price else "",
                "x_CostSplit": PRICED if price else ALLOCATED,
                "x_TokenType": name,
            }
            found.append(_Meter(_template(cells), listed))
        return tuple(found)

    def _common(self, line: FocusLine) -> dict[str, str]:
        inputs = self._inputs
        zone = inputs.time_zone
        seller = text_cell(line.provider) or ISSUER
        return {
            "BillingAccountType": "Organisation",
            "BillingCurrency": "USD",
            "BillingPeriodEnd": _instant(inputs.end_ms),
            "BillingPeriodStart": _instant(inputs.start_ms),
            "ChargeCategory": "Usage",
            "ChargeClass": "Correction" if self._corrects(line) else "",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": _instant(day_start_ms(line.day, zone)),
            "ChargePeriodEnd": _instant(day_start_ms(line.day + timedelta(days=1), zone)),
            "ConsumedUnit": "Tokens",
            "HostProviderName": seller,
            "InvoiceIssuerName": ISSUER,
            "PricingCategory": "Standard",
            "PricingCurrency": "USD",
            "PricingUnit": "1000000 Tokens",
            "ResourceType": "API Key",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "Model inference",
            "ServiceProviderName": seller,
            "ServiceSubcategory": "Generative AI",
            "SkuId": text_cell(f"{line.provider}/{line.model}"),
            "SkuPriceDetails": "",
            "SubAccountType": "Department",
            "x_ContextTierFloor": str(line.tier_floor),
            "x_ExchangeRate": inputs.exchange.rate,
            "x_OriginPeriod": line.origin_period,
            "x_PriceVersion": text_cell(line.price_version),
            "x_ReportingCurrency": inputs.exchange.currency,
            "x_ServiceTier": line.service_tier or "standard",
        }

    def _corrects(self, line: FocusLine) -> bool:
        """Whether it changes what was invoiced: an open month's own re-rating does not."""
        own = self._inputs.revision == 1 and line.origin_period == self._inputs.period
        return line.kind != LineKind.USAGE and not (line.kind == LineKind.RERATE and own)

    def _price(self, line: FocusLine) -> PriceInput | None:
        key = (line.provider, line.model, line.service_tier, line.tier_floor)
        at_ms = day_start_ms(line.day, self._inputs.time_zone)
        best: PriceInput | None = None
        for price in self._prices.get(key, ()):
            if price.from_ms <= at_ms < price.to_ms:
                return price
            best = best or price
        return best


def _template(cells: Mapping[str, str]) -> str:
    """A row with `%s` for every one of _HOLES; KeyError if a column has no cell."""
    parts = ["%s" if name in _HOLES else quoted(cells[name]).replace("%", "%%") for name in COLUMNS]
    return ",".join(parts) + "\r\n"


def _sku_price(line: FocusLine, name: str, price: PriceInput) -> str:
    since = _instant(price.from_ms)[:10]
    tier = line.service_tier or "standard"
    return f"{line.provider}/{line.model}/{tier}/{line.tier_floor}/{name}/{since}"


# A month has some dozens of instants.
@lru_cache(maxsize=4_096)
def _instant(time_ms: int) -> str:
    return rfc3339(time_ms)[:19] + "Z"


def _millionths(count: int) -> str:
    """A millionth of it, exactly, as a plain decimal without trailing zeros.

    Tokens to millions of tokens; pico-USD per token to USD per million of them.
    """
    whole, rest = divmod(abs(count), _MICRO)
    sign = "-" if count < 0 else ""
    return f"{sign}{whole}.{rest:06d}".rstrip("0") if rest else f"{sign}{whole}"
