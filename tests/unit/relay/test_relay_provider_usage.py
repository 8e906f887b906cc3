"""Providers' usage objects under the inclusive rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from meterline.relay.provider_usage import (
    ProviderUsageError,
    TokenFields,
    anthropic_usage,
    openai_chat_usage,
    openai_responses_usage,
)
from meterline.schemas.codec import fault
from meterline.schemas.usage import UsageEvent

READERS: list[Callable[[Mapping[str, Any]], TokenFields]] = [
    openai_chat_usage,
    openai_responses_usage,
    anthropic_usage,
]


def counted(fields: TokenFields) -> dict[str, int]:
    """The event that the fields make must be a good one; its non-zero quantities."""
    event = UsageEvent(
        id="e", time_ms=1_763_700_000_000, organisation="a", key="k", model="m", **fields
    )
    assert fault(event, event.time_ms) is None
    return {name: count for name, count in fields.items() if isinstance(count, int) and count}


def test_openai_chat() -> None:
    """Cached tokens are part of the prompt and reasoning part of the completion: taken over."""
    usage = {
        "prompt_tokens": 2006,
        "completion_tokens": 300,
        "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 5},
        "completion_tokens_details": {
            "reasoning_tokens": 192,
            "audio_tokens": 7,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 11,
        },
    }
    assert counted(openai_chat_usage(usage)) == {
        "input_tokens": 2006,
        "output_tokens": 300,
        "cache_read_tokens": 1920,
        "reasoning_tokens": 192,
        "input_audio_tokens": 5,
        "output_audio_tokens": 7,
    }


def test_openai_responses() -> None:
    """The Responses API says the same in other words."""
    usage = {
        "input_tokens": 328,
        "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50},
        "output_tokens": 52,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 380,
    }
    assert counted(openai_responses_usage(usage)) == {
        "input_tokens": 328,
        "output_tokens": 52,
        "cache_read_tokens": 100,
        "cache_write_tokens": 50,
        "reasoning_tokens": 20,
    }


def test_anthropic_adds_the_cache_to_the_input() -> None:
    """Anthropic's input leaves the cache out: 100 + 1000 read + 200 written are 1300."""
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 200,
        "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
        "output_tokens": 40,
        "service_tier": "standard",
    }
    assert counted(anthropic_usage(usage)) == {
        "input_tokens": 1300,
        "output_tokens": 40,
        "cache_read_tokens": 1000,
        "cache_write_tokens": 150,
        "cache_write_1h_tokens": 50,
    }


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"cache_creation_input_tokens": 200}, {"cache_write_tokens": 200}),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 7}},
            {"cache_write_tokens": 5, "cache_write_1h_tokens": 7},
        ),
    ],
)
def test_anthropic_with_half_of_the_words(usage: dict[str, Any], written: dict[str, int]) -> None:
    """Total without split, or split without total: nothing written is lost."""
    fields = counted(anthropic_usage({"input_tokens": 1, **usage}))
    assert fields == {"input_tokens": 1 + sum(written.values()), **written}


@pytest.mark.parametrize("read", READERS)
def test_absent_and_null_are_zero(read: Callable[[Mapping[str, Any]], TokenFields]) -> None:
    """A provider that says nothing, or null, has counted nothing."""
    nothing = {"prompt_tokens": None, "input_tokens": None, "cache_creation": None}
    assert counted(read({})) == counted(read(nothing)) == {}


@pytest.mark.parametrize("bad", ["12", 1.5, -1, True, [1]])
@pytest.mark.parametrize("read", READERS)
def test_no_count_is_an_error(
    read: Callable[[Mapping[str, Any]], TokenFields], bad: object
) -> None:
    """A count that is no whole number is an error, never taken as zero."""
    with pytest.raises(ProviderUsageError):
        read({"prompt_tokens": bad, "input_tokens": bad})


def test_details_that_are_no_object() -> None:
    """A detail of the wrong shape is an error with its name."""
    with pytest.raises(ProviderUsageError, match="prompt_tokens_details"):
        openai_chat_usage({"prompt_tokens_details": 3})
