"""What kinds of channels share: the checks that several of them make. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from meterline.schemas.policy_kinds import ChannelEntry, FieldFault


def required(entry: ChannelEntry, *names: str) -> Iterator[FieldFault]:
    """Fields that a kind cannot do without."""
    for name in names:
        if not getattr(entry, name):
            yield name, f"is required for a {entry.type} channel"


def one_of_url(url: str, url_env: str) -> Iterator[FieldFault]:
    """Either the URL or the variable that holds it."""
    if bool(url) == bool(url_env):
        yield "url", "is required: write either url or url_env, not both"


def usable_url(url: str, *, allow_private_address: bool) -> Iterator[FieldFault]:
    """What is wrong with a URL, if one is written; it is not quoted, for it may carry a token."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        yield "url", "is not a URL"
        return
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private_address):
        yield "url", "must begin with https:// (http:// only with allow_private_address: true)"
    elif not has_host:
        yield "url", "names no host"
    if parts.username or parts.password:
        yield "url", "carries a user name or password: use secret_env, which signs"
