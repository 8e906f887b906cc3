"""Names of sellers and models: the many spellings of one thing, folded to one.

Only the name decides, by exact match after folding; a prefix or substring never does, because a
model that does not exist yet must come out as unknown, not with the price of its elder sibling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SELLER_ALIASES: dict[str, str] = {
    # OpenTelemetry GenAI provider names, and what gateways commonly say.
    "aws.bedrock": "aws",
    "amazon": "aws",
    "bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_openai": "azure",
    "microsoft": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "gemini": "google",
    "google_vertex": "google",
    "google-vertex": "google",
    "google-gla": "google",
    "vertex": "google",
    "vertex_ai": "google",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "together-ai": "together",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "z-ai": "zai",
}

SELLER_PREFERENCE: tuple[str, ...] = (
    # An event that names no provider is priced by the model's maker, then by the great clouds,
    # then by hosts; sellers not listed follow in the order of their names.
    "openai",
    "anthropic",
    "google",
    "deepseek",
    "mistral",
    "x-ai",
    "cohere",
    "moonshotai",
    "zai",
    "minimax",
    "meta",
    "perplexity",
    "azure",
    "aws",
    "groq",
    "cerebras",
    "together",
    "fireworks",
    "openrouter",
)

SELLER_FALLBACKS: dict[str, tuple[str, ...]] = {
    # Clouds that resell at list price what they have no price of their own for.
    "azure": ("openai", "anthropic", "deepseek", "x-ai", "moonshotai"),
    "google": ("anthropic",),
}

_DATE = re.compile(r"[-@]20\d{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])$")
_BEDROCK_VERSION = re.compile(r"-v\d+(?::\d+)?$")
_BEDROCK_REGION = re.compile(r"^(?:(?:us|eu|apac|jp|au|us-gov)\.)?(?=[a-z]+\.)")


def fold(name: str) -> str:
    """One spelling of a model or seller: lower case, "-" for "." and "_"."""
    return name.strip().lower().replace(".", "-").replace("_", "-")


def seller_name(provider: str) -> str:
    """The catalogue's name of a provider; unchanged where it is not known by another."""
    lowered = provider.strip().lower()
    return SELLER_ALIASES.get(lowered, lowered)


def model_candidates(model: str) -> Iterator[str]:
    """Folded names to look for, the most literal first.

    `models/gemini-2.5-flash-2025-06-17` gives itself, without its date, without its path, and
    without both. A Bedrock id also loses its version, and its region becomes `regional.`.
    """
    lowered = model.strip().lower()
    seen: set[str] = set()
    tail = lowered.rpartition("/")[2]
    for name in (lowered, tail, _BEDROCK_REGION.sub("regional.", tail)):
        plain = _BEDROCK_VERSION.sub("", name)
        for spelling in (name, _DATE.sub("", name), plain, _DATE.sub("", plain)):
            folded = fold(spelling)
            if folded and folded not in seen:
                seen.add(folded)
                yield folded
