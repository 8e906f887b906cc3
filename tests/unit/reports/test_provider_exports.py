"""Exports of providers to exact rows, and their comparison with our counts."""

import json
from datetime import date

import pytest

from meterline.reports.providers.core.exports import (
    ProviderRow,
    ProviderRowKind,
    import_digest,
    read_export,
)
from meterline.reports.providers.core.layouts import ExportError, ProviderExportFormat, layout_of
from meterline.reports.providers.core.variance import (
    Counts,
    MeasureVariance,
    ModelDay,
    compare_counts,
)

DAY = date(2026, 10, 5)
NEXT = date(2026, 10, 6)
START = 1_791_158_400  # 2026-10-05T00:00Z
OPENAI_USAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": START,
            "end_time": START + 86_400,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1000,
                    "output_tokens": 500,
                    "input_cached_tokens": 800,
                    "num_model_requests": 5,
                    "project_id": "proj_1",
                    "api_key_id": "key_1",
                    "model": "gpt-4.1-2025-04-14",
                    "batch": None,
                }
            ],
        },
        {"object": "bucket", "start_time": START + 86_400, "end_time": 0, "results": []},
    ],
    "has_more": False,
    "next_page": None,
}
ANTHROPIC_USAGE = {
    "data": [
        {
            "starting_at": "2026-10-05T00:00:00Z",
            "ending_at": "2026-10-06T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 100,
                    "cache_creation": {
                        "ephemeral_1h_input_tokens": 20,
                        "ephemeral_5m_input_tokens": 3,
                    },
                    "cache_read_input_tokens": 4000,
                    "output_tokens": 50,
                    "server_tool_use": {"web_search_requests": 1},
                    "api_key_id": "apikey_1",
                    "workspace_id": None,
                    "model": "claude-sonnet-4-5-20250929",
                }
            ],
        }
    ],
    "has_more": False,
}

ANTHROPIC_CSV = (
    "usage_date_utc,model_version,api_key,workspace,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,"
    "usage_input_tokens_cache_read,usage_output_tokens\n"
    "2026-10-05,claude-haiku-4-5,k,w,1,2,3,4,5\n"
)


def as_bytes(document: object) -> bytes:
    return json.dumps(document).encode()


def test_openai_usage_is_read_with_its_empty_days() -> None:
    """Counts come as they are; a bucket without results still says that its day is covered."""
    export = read_export(as_bytes(OPENAI_USAGE), ProviderExportFormat.AUTO)
    assert export.layout.format is ProviderExportFormat.OPENAI_USAGE
    assert export.rows == (
        ProviderRow(
            "openai",
            ProviderRowKind.USAGE,
            DAY,
            "gpt-4.1-2025-04-14",
            "key_1",
            "proj_1",
            5,
            1000,
            500,
            800,
        ),
        ProviderRow("openai", ProviderRowKind.USAGE, NEXT, ""),
    )


def test_anthropic_input_includes_the_cached_tokens() -> None:
    """Anthropic counts cached tokens apart; ours are inclusive, so theirs are added."""
    (row,) = read_export(as_bytes(ANTHROPIC_USAGE), ProviderExportFormat.AUTO).rows
    assert (row.input_tokens, row.output_tokens) == (4123, 50)
    assert (row.cache_read_tokens, row.cache_write_tokens) == (4000, 23)


def test_costs_are_exact_and_anthropic_gives_cents() -> None:
    """Dollars of OpenAI and cents of Anthropic become nano-dollars without a float between."""
    openai = (
        '{"data":[{"start_time":1791158400,"results":[{"amount":{"value":0.123456789012,'
        '"currency":"usd"},"line_item":"gpt-4.1-2025-04-14, input","project_id":null}]}]}'
    )
    (row,) = read_export(openai.encode(), ProviderExportFormat.AUTO).rows
    assert (row.kind, row.model, row.cost_nano_usd) == (
        ProviderRowKind.COST,
        "gpt-4.1-2025-04-14",
        123_456_789,
    )
    anthropic = {
        "data": [
            {
                "starting_at": "2026-10-05T00:00:00Z",
                "results": [
                    {"currency": "USD", "amount": "123.45", "model": "claude-sonnet-4-5"},
                    {"currency": "USD", "amount": "1", "model": None},
                ],
            }
        ]
    }
    costs = [
        each.cost_nano_usd
        for each in read_export(as_bytes(anthropic), ProviderExportFormat.AUTO).rows
    ]
    assert costs == [1_234_500_000, 10_000_000]


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (
            f"""start_time,num_model_requests,model,input_tokens,output_tokens
{START},2,gpt-4.1,10,20
""",
            ProviderExportFormat.OPENAI_USAGE,
            ProviderRow("openai", ProviderRowKind.USAGE, DAY, "gpt-4.1", "", "", 2, 10, 20),
        ),
        (
            f"start_time,amount_value,amount_currency,line_item\n{START},0.0100,usd,gpt-4.1\n",
            ProviderExportFormat.OPENAI_COSTS,
            ProviderRow("openai", ProviderRowKind.COST, DAY, "gpt-4.1", cost_nano_usd=10_000_000),
        ),
        (
            ANTHROPIC_CSV,
            ProviderExportFormat.ANTHROPIC_USAGE,
            ProviderRow(
                "anthropic",
                ProviderRowKind.USAGE,
                DAY,
                "claude-haiku-4-5",
                "k",
                "w",
                0,
                10,
                5,
                4,
                5,
            ),
        ),
        (
            "usage_date_utc,model,api_key,workspace,cost_usd\n2026-10-05,claude-haiku-4-5,k,w,1.5\n",
            ProviderExportFormat.ANTHROPIC_COSTS,
            ProviderRow(
                "anthropic",
                ProviderRowKind.COST,
                DAY,
                "claude-haiku-4-5",
                "k",
                "w",
                cost_nano_usd=15 * 10**8,
            ),
        ),
    ],
)
def test_csv_exports_are_recognised_by_their_columns(
    text: str, form: ProviderExportFormat, expected: ProviderRow
) -> None:
    """The files of the providers' consoles are read without naming what they are."""
    export = read_export(text.encode(), ProviderExportFormat.AUTO)
    assert export.layout.format is form
    assert export.rows == (expected,)


def test_other_files_are_read_by_a_column_map() -> None:
    """Any table with days and models can be compared: columns are named, parts added up."""
    layout = layout_of("deepseek", "day=Date,model=Model,input_tokens=Hit+Miss,cost_usd=Cost")
    content = b"Date,Model,Hit,Miss,Cost\n2026-10-05,deepseek-chat,7,8,0.5\n"
    usage, cost = read_export(content, ProviderExportFormat.AUTO, layout).rows
    assert (usage.kind, usage.input_tokens, usage.provider) == (
        ProviderRowKind.USAGE,
        15,
        "deepseek",
    )
    assert (cost.kind, cost.cost_nano_usd) == (ProviderRowKind.COST, 500_000_000)


def test_pages_may_follow_each_other() -> None:
    """Pages saved to one file, in a list or line by line, are one export."""
    page = as_bytes(OPENAI_USAGE)
    rows = read_export(page, ProviderExportFormat.AUTO).rows
    assert read_export(page + b"\n" + page + b"\n", ProviderExportFormat.AUTO).rows == rows + rows
    assert (
        read_export(b"[" + page + b"," + page + b"]", ProviderExportFormat.AUTO).rows == rows + rows
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a,b\n1,2\n", "name the columns with --columns"),
        (b'{"data": 1}', "without pages of buckets"),
        (b"{broken", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"start_time,model,input_tokens,output_tokens\nx,m,1,1\n", "'x' is no day"),
        (b"start_time,model,input_tokens,output_tokens\n1,m,1.5,1\n", "'1.5' is no count"),
        (b"start_time,model,input_tokens,output_tokens\n1,,1,1\n", "grouped by model"),
        (b"start_time,line_item,amount_value\n1,m,1e999999999\n", "no number that an export"),
        (
            b"start_time,line_item,amount_value,amount_currency\n1,m,1,eur\n",
            "only US dollars",
        ),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, fault: str) -> None:
    """A wrong file is refused whole, with the record and what to do about it."""
    with pytest.raises(ExportError, match=fault):
        read_export(content, ProviderExportFormat.AUTO)


def test_a_column_map_names_its_mistakes() -> None:
    """A map without a day or with an unknown meaning is refused."""
    with pytest.raises(ExportError, match="day=COLUMN"):
        layout_of("x", "model=M,input_tokens=I")
    with pytest.raises(ExportError, match="'colour' means nothing"):
        layout_of("x", "day=D,model=M,input_tokens=I,colour=C")


def test_the_tolerance_is_exact() -> None:
    """Five percent is within, one token more is not; a count of one side only never is."""
    assert not MeasureVariance("input_tokens", 1_000_000, 950_000).beyond(50_000)
    assert MeasureVariance("input_tokens", 1_000_000, 949_999).beyond(50_000)
    assert not MeasureVariance("input_tokens", 0, 0).beyond(0)
    assert MeasureVariance("input_tokens", 0, 1).beyond(50_000)
    assert MeasureVariance("input_tokens", 0, 1).variance_ppm is None
    assert MeasureVariance("input_tokens", 200, 150).variance_ppm == 250_000


def test_covered_days_are_compared_and_others_not() -> None:
    """Ours on a day that no export covers is not missed there; on a covered day it is."""
    theirs = [
        (ProviderRowKind.USAGE, ModelDay(DAY, "GPT-4.1"), Counts(5, 1000, 500)),
        (ProviderRowKind.USAGE, ModelDay(NEXT, ""), Counts()),
    ]
    ours = {
        ModelDay(DAY, "gpt-4.1"): Counts(5, 980, 500, 7),
        ModelDay(NEXT, "gpt-4.1"): Counts(1, 10, 1, 2),
        ModelDay(date(2026, 10, 7), "gpt-4.1"): Counts(1, 10, 1, 2),
    }
    found = compare_counts(theirs, ours, str.lower)
    assert [(each.cell.day, each.flagged) for each in found] == [
        (DAY, ()),
        (NEXT, ("input_tokens", "output_tokens")),
    ]
    assert [one.name for one in found[0].measures] == ["requests", "input_tokens", "output_tokens"]


def test_digest_of_an_import_is_stable_across_releases() -> None:
    """The digest of stored imports never changes, so that a repeated import is recognised after an
    upgrade."""
    usage, cost = ProviderRowKind.USAGE, ProviderRowKind.COST
    rows = [
        ProviderRow("openai", usage, date(2026, 10, 1), "gpt-5", "k", "p", 1, 2, 3, 4, 5, 0),
        ProviderRow("openai", cost, date(2026, 10, 1), "gpt-5", cost_nano_usd=7),
    ]
    stored = "f2b2690ad9c49cfc6c6a14ed300e9c76782d4156f44e8c26d523572f8d4ba33d"
    assert import_digest(rows) == import_digest(rows[::-1]) == stored
