"""Pure: which column of an export means what.

    OpenAI     GET /v1/organization/usage/completions, /v1/organization/costs, and their CSV
    Anthropic  GET /v1/organizations/usage_report/messages, /cost_report, and the console's CSV

A nested field of JSON is named with a dot, as in `cache_creation.ephemeral_5m_input_tokens`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from meterline.schemas.errors import MeterlineError

CENTS_PER_USD = 100


class ExportError(MeterlineError, ValueError):
    """An export that cannot be read; the message says what to do."""


class ProviderExportFormat(StrEnum):
    """Format of a provider's export."""

    AUTO = "auto"
    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COSTS = "anthropic-costs"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class ProviderLayout:
    """Columns by meaning; several columns of one meaning are added up."""

    format: ProviderExportFormat
    provider: str
    day: str
    """Seconds since 1970, a date or an RFC 3339 time, all UTC."""
    model: str
    input: tuple[str, ...] = ()
    """Cached tokens included, as everywhere in Meterline."""
    output: tuple[str, ...] = ()
    cache_read: tuple[str, ...] = ()
    cache_write: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    cost: tuple[str, ...] = ()
    units_per_usd: int = 1
    """1 where the cost is in dollars, 100 where it is in cents."""
    currency: str = ""
    key: str = ""
    project: str = ""
    model_ends_at_comma: bool = False
    """`gpt-4.1-2025-04-14, input`: what comes after the comma is not the model's name."""

    @property
    def needed(self) -> frozenset[str]:
        """Columns without which a file is not of this layout."""
        return frozenset([self.day, self.model, *self.input, *self.output, *self.cost])

    @property
    def has_tokens(self) -> bool:
        """Whether it counts tokens, not only money."""
        return bool(self.input or self.output)


_ANTHROPIC_WRITES = (
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
)
_ANTHROPIC_CSV_WRITES = (
    "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h",
)
KNOWN_LAYOUTS: tuple[ProviderLayout, ...] = (
    ProviderLayout(
        ProviderExportFormat.OPENAI_USAGE,
        "openai",
        day="start_time",
        model="model",
        input=("input_tokens",),
        output=("output_tokens",),
        cache_read=("input_cached_tokens",),
        requests=("num_model_requests",),
        key="api_key_id",
        project="project_id",
    ),
    ProviderLayout(
        ProviderExportFormat.OPENAI_COSTS,
        "openai",
        day="start_time",
        model="line_item",
        cost=("amount.value",),
        currency="amount.currency",
        project="project_id",
        model_ends_at_comma=True,
    ),
    ProviderLayout(
        ProviderExportFormat.OPENAI_COSTS,
        "openai",
        day="start_time",
        model="line_item",
        cost=("amount_value",),
        currency="amount_currency",
        project="project_id",
        model_ends_at_comma=True,
    ),
    ProviderLayout(
        ProviderExportFormat.ANTHROPIC_USAGE,
        "anthropic",
        day="starting_at",
        model="model",
        input=("uncached_input_tokens", "cache_read_input_tokens", *_ANTHROPIC_WRITES),
        output=("output_tokens",),
        cache_read=("cache_read_input_tokens",),
        cache_write=_ANTHROPIC_WRITES,
        key="api_key_id",
        project="workspace_id",
    ),
    ProviderLayout(
        ProviderExportFormat.ANTHROPIC_USAGE,
        "anthropic",
        day="usage_date_utc",
        model="model_version",
        input=(
            "usage_input_tokens_no_cache",
            "usage_input_tokens_cache_read",
            *_ANTHROPIC_CSV_WRITES,
        ),
        output=("usage_output_tokens",),
        cache_read=("usage_input_tokens_cache_read",),
        cache_write=_ANTHROPIC_CSV_WRITES,
        key="api_key",
        project="workspace",
    ),
    ProviderLayout(
        ProviderExportFormat.ANTHROPIC_COSTS,
        "anthropic",
        day="starting_at",
        model="model",
        cost=("amount",),
        units_per_usd=CENTS_PER_USD,
        currency="currency",
        project="workspace_id",
    ),
    ProviderLayout(
        ProviderExportFormat.ANTHROPIC_COSTS,
        "anthropic",
        day="usage_date_utc",
        model="model",
        cost=("cost_usd",),
        key="api_key",
        project="workspace",
    ),
)


def choose_layout(form: ProviderExportFormat, columns: Collection[str]) -> ProviderLayout:
    """The layout of a file with these columns.

    Raises:
        ExportError: none fits.
    """
    wanted = [each for each in KNOWN_LAYOUTS if form in {ProviderExportFormat.AUTO, each.format}]
    for layout in wanted:
        if layout.needed <= set(columns):
            return layout
    if form is ProviderExportFormat.AUTO:
        message = (
            "not an export of OpenAI or Anthropic as their APIs give it, grouped by model "
            "(costs: by line item or description): name the columns with --columns"
        )
    else:
        lacks = min((sorted(each.needed - set(columns)) for each in wanted), key=len, default=[])
        message = f"not {form.value}: it lacks {', '.join(lacks)}"
    raise ExportError(message)


_MEANINGS = (
    "day", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "requests", "cost_usd", "key", "project",
)  # fmt: skip


def layout_of(provider: str, columns: str) -> ProviderLayout:
    """A layout given with --columns: `day=Date,model=Model,input_tokens=A+B,cost_usd=Cost`.

    Raises:
        ExportError: a meaning is unknown or missing.
    """
    given = dict(_pairs(columns))
    day, model = given.pop("day", ""), given.pop("model", "")
    if not (provider and day and model):
        message = "an export with --columns needs --provider, day=COLUMN and model=COLUMN"
        raise ExportError(message)
    layout = ProviderLayout(
        ProviderExportFormat.COLUMNS,
        provider,
        day,
        model,
        input=_parts(given.pop("input_tokens", "")),
        output=_parts(given.pop("output_tokens", "")),
        cache_read=_parts(given.pop("cache_read_tokens", "")),
        cache_write=_parts(given.pop("cache_write_tokens", "")),
        requests=_parts(given.pop("requests", "")),
        cost=_parts(given.pop("cost_usd", "")),
        key=given.pop("key", ""),
        project=given.pop("project", ""),
    )
    if given:
        message = f"--columns: {min(given)!r} means nothing; known: {', '.join(_MEANINGS)}"
        raise ExportError(message)
    if not (layout.has_tokens or layout.cost):
        message = "--columns: name input_tokens, output_tokens or cost_usd"
        raise ExportError(message)
    return layout


def _pairs(columns: str) -> Iterator[tuple[str, str]]:
    for part in columns.split(","):
        name, equals, column = (each.strip() for each in part.partition("="))
        if not (equals and column):
            message = f"--columns: {part.strip()!r} is not MEANING=COLUMN"
            raise ExportError(message)
        yield name, column


def _parts(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split("+") if each.strip())
