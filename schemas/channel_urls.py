"""What must hold for the URL of a channel, whatever its kind. Pure.

No finding quotes a URL: receivers' URLs often carry a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from meterline.schemas.policy_kinds import FieldFault


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
