"""Providers' usage objects to the token fields of a UsageEvent, under the inclusive rule.

Cached tokens are part of `input_tokens` and reasoning tokens part of `output_tokens`. OpenAI counts
that way; Anthropic leaves cached tokens out of `input_tokens`, so they are added here, once, at the
edge.

    event = UsageEvent(id=..., **anthropic_usage(response["usage"]))

A count that a provider leaves out, or sends as null, is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from meterline.schemas.errors import MeterlineError

ProviderUsage = Mapping[str, Any]


class ProviderUsageError(MeterlineError, ValueError):
    """A usage object in which a count is no whole number; the message names the field."""


class TokenFields(TypedDict):
    """The quantities of a UsageEvent."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int


def openai_chat_usage(usage: ProviderUsage) -> TokenFields:
    """The `usage` of a chat completion; also of the many servers that imitate it.

    Rejected prediction tokens are part of completion_tokens and billed, so they stay in.
    """
    prompt = _part(usage, "prompt_tokens_details")
    completion = _part(usage, "completion_tokens_details")
    return TokenFields(
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cache_read_tokens=_count(prompt, "cached_tokens"),
        cache_write_tokens=_count(prompt, "cache_write_tokens"),
        cache_write_1h_tokens=0,
        reasoning_tokens=_count(completion, "reasoning_tokens"),
        input_audio_tokens=_count(prompt, "audio_tokens"),
        output_audio_tokens=_count(completion, "audio_tokens"),
    )


def openai_responses_usage(usage: ProviderUsage) -> TokenFields:
    """The `usage` of a response of the Responses API."""
    given = _part(usage, "input_tokens_details")
    made = _part(usage, "output_tokens_details")
    return TokenFields(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cache_read_tokens=_count(given, "cached_tokens"),
        cache_write_tokens=_count(given, "cache_write_tokens"),
        cache_write_1h_tokens=0,
        reasoning_tokens=_count(made, "reasoning_tokens"),
        input_audio_tokens=_count(given, "audio_tokens"),
        output_audio_tokens=_count(made, "audio_tokens"),
    )


def anthropic_usage(usage: ProviderUsage) -> TokenFields:
    """The `usage` of a message: input_tokens there is what was neither read nor written cached."""
    split = _part(usage, "cache_creation")
    written_1h = _count(split, "ephemeral_1h_input_tokens")
    # The total is the older field; where only one of total and split is sent, it is the truth.
    written = max(
        _count(usage, "cache_creation_input_tokens"),
        _count(split, "ephemeral_5m_input_tokens") + written_1h,
    )
    cached = _count(usage, "cache_read_input_tokens")
    return TokenFields(
        input_tokens=_count(usage, "input_tokens") + cached + written,
        output_tokens=_count(usage, "output_tokens"),
        cache_read_tokens=cached,
        cache_write_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=0,
        input_audio_tokens=0,
        output_audio_tokens=0,
    )


def _part(usage: ProviderUsage, name: str) -> ProviderUsage:
    part = usage.get(name)
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        message = f"{name} is no object"
        raise ProviderUsageError(message)
    return part


def _count(usage: ProviderUsage, name: str) -> int:
    count = usage.get(name)
    if count is None:
        return 0
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        message = f"{name} is no count of tokens: {count!r}"
        raise ProviderUsageError(message)
    return count
