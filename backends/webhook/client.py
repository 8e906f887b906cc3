"""Sends webhooks.

Guard against requests into our own network (SSRF), unless a channel allows private addresses:
https on port 443 only, and httpx-secure checks and pins the address that is connected. Always: no
redirects, no proxy from the environment, no user name in the URL, a bounded response.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import re
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import httpx
from httpx_secure import SSRFProtectionError, httpx_ssrf_protection
from standardwebhooks import Webhook

from meterline.backends.loop_thread import LoopThread
from meterline.backends.webhook.messages import (
    WebhookAnswer,
    WebhookForbiddenError,
    WebhookRequest,
    WebhookUnreachableError,
    signing_secret,
)

# An answer is a status; its body is read only to let the connection be used again.
RESPONSE_BYTES_MAX = 64 * 1024
# More than all channels' in-flight bounds together on a small installation.
CONNECTIONS_MAX = 100
CODE_LENGTH_MAX = 40
# Enough for the status that the connector of Teams writes into its sentence.
BODY_START_BYTES_MAX = 200
USER_AGENT = "meterline"
_HTTPS_PORT = 443
_CODE = re.compile(rb"[a-z]+(_[a-z]+)+")


class WebhookClient:
    """Sends from a thread of its own, so that a receiver that hangs blocks no caller."""

    def __init__(self, timeout_seconds: float = 15, ca_file: str = "") -> None:
        """Start the thread.

        Args:
            timeout_seconds: for a whole attempt, from the look-up of the name to the last byte.
            ca_file: PEM file of certificate authorities trusted beside the usual ones.
        """
        self._timeout_seconds = timeout_seconds
        self._tls = httpx.create_ssl_context(trust_env=False)
        if ca_file:
            self._tls.load_verify_locations(ca_file)
        self._thread = LoopThread("webhooks")
        self._clients: dict[bool, httpx.AsyncClient] = {}

    def post(self, request: WebhookRequest) -> concurrent.futures.Future[WebhookAnswer]:
        """Send one attempt; the future holds the answer, or raises WebhookError."""
        return self._thread.start(self._post(request))

    def close(self) -> None:
        """Abandon what is under way and end the thread; idempotent."""
        self._thread.close(self._shut)

    async def _shut(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def _post(self, request: WebhookRequest) -> WebhookAnswer:
        url = _checked_url(request)
        headers = _headers(request)
        client = self._client(guarded=not request.allow_private_address)
        return await _in_time(self._exchange(client, url, headers, request), self._timeout_seconds)

    async def _exchange(
        self,
        client: httpx.AsyncClient,
        url: httpx.URL,
        headers: dict[str, str],
        request: WebhookRequest,
    ) -> WebhookAnswer:
        try:
            async with client.stream(
                "POST", url, content=request.body, headers=headers
            ) as response:
                head = await _drain(response)
        except SSRFProtectionError as error:
            message = f"{url.host} leads to an address that is not public"
            raise WebhookForbiddenError(message) from error
        except httpx.TransportError as error:
            # The driver's text may quote the URL: its class says what happened.
            message = f"no answer from {url.host}: {type(error).__name__}"
            raise WebhookUnreachableError(message) from error
        text = head.decode("ascii", "ignore")
        return WebhookAnswer(
            response.status_code,
            _retry_after(response, request.at_ms),
            text if len(head) <= CODE_LENGTH_MAX and _CODE.fullmatch(head) else "",
            text,
        )

    def _client(self, *, guarded: bool) -> httpx.AsyncClient:
        """One client per kind, made on the loop that uses it."""
        client = self._clients.get(guarded)
        if client is None:
            client = httpx.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                verify=self._tls,
                timeout=self._timeout_seconds,
                limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
                headers={"user-agent": USER_AGENT},
            )
            self._clients[guarded] = httpx_ssrf_protection(client) if guarded else client
        return self._clients[guarded]


async def _in_time(work: Coroutine[Any, Any, WebhookAnswer], seconds: float) -> WebhookAnswer:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        message = f"no answer within {seconds:g} s"
        raise WebhookUnreachableError(message) from error


async def _drain(response: httpx.Response) -> bytes:
    """Read a bounded part of the body; what is longer is cut with the connection."""
    read, head = 0, b""
    async for chunk in response.aiter_raw():
        read += len(chunk)
        head += chunk[: BODY_START_BYTES_MAX - len(head)]
        if read > RESPONSE_BYTES_MAX:
            break
    return head


def _checked_url(request: WebhookRequest) -> httpx.URL:
    try:
        url = httpx.URL(request.url)
    except httpx.InvalidURL as error:
        message = "the URL cannot be read"
        raise WebhookForbiddenError(message) from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
        message = "the URL must be http(s)://HOST/... without a user name"
        raise WebhookForbiddenError(message)
    if not request.allow_private_address and (
        url.scheme != "https" or (url.port or _HTTPS_PORT) != _HTTPS_PORT
    ):
        message = f"{url.host}: a receiver must be https on port {_HTTPS_PORT}"
        raise WebhookForbiddenError(message)
    return url


def _headers(request: WebhookRequest) -> dict[str, str]:
    # The library signs a wrong time unless the datetime is in UTC.
    moment = datetime.fromtimestamp(request.at_ms // 1000, UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": request.message_id,
        "webhook-timestamp": str(request.at_ms // 1000),
    }
    if request.idempotency_key:
        headers["idempotency-key"] = request.idempotency_key
    if request.bearer:
        headers["authorization"] = f"Bearer {request.bearer}"
    if request.secret:
        signer = Webhook(signing_secret(request.secret))
        headers["webhook-signature"] = signer.sign(
            request.message_id, moment, request.body.decode()
        )
    return headers


def _retry_after(response: httpx.Response, now_ms: int) -> int | None:
    """Seconds to wait, from a Retry-After in seconds or as a date; None without a usable one."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return int(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0, int(moment.timestamp()) - now_ms // 1000)
