"""Key, tenant and model of a request: what a trace does not hold.

Skewed as in production: a few heavy keys, a few heavy departments. The same seed gives the same keys,
departments, projects, users and models.
"""

from __future__ import annotations

import random  # noqa: TID251 - seeded: a replay must be repeatable
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from meterline.operations.replay.traces import TraceRow
from meterline.schemas.usage import UsageEvent

DEPARTMENTS: tuple[str, ...] = (
    "research",
    "support",
    "marketing",
    "finance",
    "engineering",
    "sales",
    "legal",
    "operations",
)
PROJECTS: tuple[str, ...] = ("assistant", "search", "agents", "batch")
PROJECTS_PER_DEPARTMENT_MAX = 3
USERS_PER_KEY_MAX = 4
ZIPF_EXPONENT = 1.1
"""The heaviest of 200 keys then makes about a fifth of the requests."""
MAIN_MODEL_SHARE = 0.8
PRODUCTION_SHARE = 0.8
CACHED_SHARE = 0.3
"""Of requests that reuse a cached prefix."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model, its provider, and how its requests look."""

    model: str
    provider: str
    weight: float
    reasoning_share: float = 0.0
    """Of the output; 0 for models that do not reason."""
    writes_cache: bool = False


MODELS: tuple[ModelChoice, ...] = (
    ModelChoice("gpt-4.1", "openai", 0.35),
    ModelChoice("claude-sonnet-4.5", "anthropic", 0.30, writes_cache=True),
    ModelChoice("gemini-2.5-flash", "google", 0.25, reasoning_share=0.3),
    ModelChoice("deepseek-v3.2", "deepseek", 0.10, reasoning_share=0.5),
)


@dataclass(frozen=True, slots=True)
class KeyProfile:
    """One API key and the scopes it belongs to."""

    key: str
    department: str
    project: str
    users: tuple[str, ...]
    main_model: ModelChoice
    environment: str


def department_names(count: int) -> tuple[str, ...]:
    """Names of `count` departments; past the list they are numbered."""
    named = DEPARTMENTS[:count]
    return named + tuple(f"department-{number}" for number in range(len(named) + 1, count + 1))


class Assigner:
    """Draws a key for every request; not thread-safe."""

    def __init__(self, *, organisation: str, keys: int, departments: int, seed: int) -> None:
        """Lay out keys over departments: every department has at least one."""
        self._organisation = organisation
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        names = department_names(departments)
        self.profiles = tuple(self._profile(number, names) for number in range(1, keys + 1))
        self._cumulative = list(accumulate(_zipf(keys)))
        self._model_weights = list(accumulate(choice.weight for choice in MODELS))

    def event(self, row: TraceRow, event_id: str, time_ms: int, relay: str) -> UsageEvent:
        """Make the usage event of one request."""
        draw = self._draw
        (profile,) = draw.choices(self.profiles, cum_weights=self._cumulative)
        choice = profile.main_model
        if draw.random() >= MAIN_MODEL_SHARE:
            (choice,) = draw.choices(MODELS, cum_weights=self._model_weights)
        read, written = self._cached(row.input_tokens, choice)
        reasoning = int(row.output_tokens * choice.reasoning_share * draw.random())
        return UsageEvent(
            id=event_id,
            time_ms=time_ms,
            organisation=self._organisation,
            department=profile.department,
            project=profile.project,
            user=draw.choice(profile.users),
            key=profile.key,
            environment=profile.environment,
            provider=choice.provider,
            model=choice.model,
            operation="chat",
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=reasoning,
            usage_source="provider_reported",
            status="ok",
            http_status=200,
            finish_reason="stop",
            stream=True,
            # About what such models take: half a second, and 15 ms per token.
            latency_ms=500 + 15 * row.output_tokens,
            ttft_ms=300 + row.input_tokens // 20,
            relay=relay,
        )

    def _cached(self, input_tokens: int, choice: ModelChoice) -> tuple[int, int]:
        draw = self._draw
        if draw.random() >= CACHED_SHARE:
            return 0, 0
        read = int(input_tokens * draw.uniform(0.2, 0.8))
        written = int((input_tokens - read) * 0.5) if choice.writes_cache else 0
        return read, written

    def _profile(self, number: int, departments: Sequence[str]) -> KeyProfile:
        draw = self._draw
        if number <= len(departments):
            department = departments[number - 1]
        else:
            (department,) = draw.choices(departments, _zipf(len(departments)))
        project = PROJECTS[draw.randrange(PROJECTS_PER_DEPARTMENT_MAX)]
        users = draw.sample(range(1, 1 + 4 * USERS_PER_KEY_MAX), draw.randint(1, USERS_PER_KEY_MAX))
        (main_model,) = draw.choices(MODELS, [choice.weight for choice in MODELS])
        return KeyProfile(
            key=f"k-{number:04d}",
            department=department,
            project=f"{department}-{project}",
            users=tuple(f"{department}-{user:02d}@{self._organisation}.test" for user in users),
            main_model=main_model,
            environment="production" if draw.random() < PRODUCTION_SHARE else "staging",
        )


def _zipf(count: int) -> list[float]:
    return [1 / rank**ZIPF_EXPONENT for rank in range(1, count + 1)]
