"""The webhook client against a real HTTP server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from meterline.backends.webhook.client import RESPONSE_BYTES_MAX, WebhookClient
from meterline.backends.webhook.messages import (
    WebhookAnswer,
    WebhookForbiddenError,
    WebhookRequest,
    WebhookUnreachableError,
    signing_secret,
)
from tests.webhook_receiver import SECRET, Answer, Receiver, running_receiver

BODY = b'{"type":"alert.firing"}'
ANSWER_SECONDS_MAX = 10


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One server for all tests; each uses a path of its own."""
    with running_receiver() as running:
        yield running


@pytest.fixture
def webhooks() -> Iterator[WebhookClient]:
    """A client with a short time-out."""
    opened = WebhookClient(timeout_seconds=1)
    yield opened
    opened.close()


def now_ms() -> int:
    """The present: receivers refuse old signatures."""
    return int(time.time() * 1000)


def request(url: str, *, private: bool = True, secret: str = SECRET) -> WebhookRequest:
    """One attempt."""
    return WebhookRequest(url, "msg_1", BODY, now_ms(), secret, private)


def test_a_receiver_can_verify_the_signature(receiver: Receiver, webhooks: WebhookClient) -> None:
    """What is signed is what is sent, under the message's id and the attempt's time."""
    answer = webhooks.post(request(receiver.url("/signed"))).result(ANSWER_SECONDS_MAX)
    assert answer.status == 204
    (received,) = receiver.of("/signed")
    assert received.verified() == json.loads(BODY)
    assert received.headers["webhook-id"] == "msg_1"
    assert received.headers["content-type"] == "application/json"
    received.body += b" "
    with pytest.raises(WebhookVerificationError):
        received.verified()


def test_without_a_secret_there_is_no_signature(
    receiver: Receiver, webhooks: WebhookClient
) -> None:
    """An unsigned channel says so by the header's absence."""
    webhooks.post(request(receiver.url("/unsigned"), secret="")).result(ANSWER_SECONDS_MAX)
    assert "webhook-signature" not in receiver.of("/unsigned")[0].headers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("99999999999999999999", 999_999_999),
    ],
)
def test_retry_after_is_read(
    receiver: Receiver, webhooks: WebhookClient, text: str, seconds: int | None
) -> None:
    """Seconds or a date; anything else is as if it was not there."""
    url = receiver.url("/busy", Answer(429, {"retry-after": text}))
    answer = webhooks.post(request(url)).result(ANSWER_SECONDS_MAX)
    assert (answer.status, answer.retry_after_seconds) == (429, seconds)


def test_redirects_are_not_followed(receiver: Receiver, webhooks: WebhookClient) -> None:
    """A signed message does not go to an address that was not checked."""
    elsewhere = receiver.url("/elsewhere")
    url = receiver.url("/moved", Answer(307, {"location": elsewhere}))
    assert webhooks.post(request(url)).result(ANSWER_SECONDS_MAX).status == 307
    assert receiver.of("/elsewhere") == []


def test_a_receiver_that_hangs_is_given_up(receiver: Receiver, webhooks: WebhookClient) -> None:
    """The attempt ends at its bound, and others go on meanwhile."""
    hanging = webhooks.post(request(receiver.url("/hang", Answer(hang=True))))
    assert webhooks.post(request(receiver.url("/quick"))).result(ANSWER_SECONDS_MAX).status == 204
    assert not hanging.done()
    with pytest.raises(WebhookUnreachableError, match="within 1 s"):
        hanging.result(ANSWER_SECONDS_MAX)


def test_a_long_answer_is_cut(receiver: Receiver, webhooks: WebhookClient) -> None:
    """A receiver cannot fill our memory; its status counts all the same."""
    url = receiver.url("/long", Answer(200, body=b"x" * (RESPONSE_BYTES_MAX * 20)))
    assert webhooks.post(request(url)).result(ANSWER_SECONDS_MAX).status == 200
    assert webhooks.post(request(receiver.url("/long"))).result(ANSWER_SECONDS_MAX).status == 204


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "https://10.1.2.3/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/hook",
    ],
)
def test_private_addresses_are_refused(webhooks: WebhookClient, url: str) -> None:
    """A URL cannot make us talk to our own network, and the refusal does not show its path."""
    with pytest.raises(WebhookForbiddenError) as refused:
        webhooks.post(request(url, private=False)).result(ANSWER_SECONDS_MAX)
    assert "hook" not in str(refused.value)
    assert "meta-data" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "2130706433"])
def test_a_name_that_leads_to_us_is_refused(
    receiver: Receiver, webhooks: WebhookClient, host: str
) -> None:
    """The guard looks at the address that is connected, not at how the host is written."""
    port = receiver.base_url.rpartition(":")[2]
    given = request(f"http://{host}:{port}/guarded")

    async def exchange() -> WebhookAnswer:
        # Past the rule of https on 443, for which nothing listens on this machine.
        guarded = webhooks._client(guarded=True)
        return await webhooks._exchange(guarded, httpx.URL(given.url), {}, given)

    future = webhooks._thread.start(exchange())
    with pytest.raises(WebhookForbiddenError, match="not public"):
        future.result(ANSWER_SECONDS_MAX)
    assert receiver.of("/guarded") == []


@pytest.mark.parametrize(
    ("url", "private", "because"),
    [
        ("http://example.com/hook", False, "not encrypted"),
        ("https://example.com:8443/hook", False, "not the https port"),
        ("https://user:pass@example.com/hook", False, "credentials in the URL"),
        ("ftp://127.0.0.1/hook", True, "not http"),
        ("https://", True, "no host"),
        ("not a url", True, "no scheme"),
        ("https://example.com:port/", True, "cannot be read"),
    ],
)
def test_unusable_urls_are_refused(
    webhooks: WebhookClient, url: str, private: bool, because: str
) -> None:
    """What cannot be right is refused before anything is sent."""
    refused = webhooks.post(request(url, private=private)).exception(ANSWER_SECONDS_MAX)
    assert isinstance(refused, WebhookForbiddenError), because


def test_an_address_without_a_listener_is_worth_another_try(webhooks: WebhookClient) -> None:
    """A refused connection may be a restart."""
    with pytest.raises(WebhookUnreachableError, match=r"no answer from 127\.0\.0\.1"):
        webhooks.post(request("http://127.0.0.1:9/secret-path")).result(ANSWER_SECONDS_MAX)


@pytest.mark.parametrize(
    ("secret", "because"),
    [
        ("", "empty"),
        ("bWV0ZXJsaW5lLXRlc3Qtc2VjcmV0LTAxMjM0NTY3", "no prefix"),
        ("whsec_c2hvcnQ=", "five bytes"),
        ("whsec_!!!", "not base64"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "65 bytes"),
    ],
)
def test_weak_secrets_are_refused_and_not_shown(secret: str, because: str) -> None:
    """The library checks no length; we do, and no message quotes the secret."""
    with pytest.raises(WebhookForbiddenError) as refused:
        signing_secret(secret)
    assert not secret or secret not in str(refused.value), because


def test_a_request_does_not_show_its_secrets() -> None:
    """Neither the URL, which may hold a token, nor the signing secret is in the repr."""
    shown = repr(request("https://hooks.test/T0K3N"))
    assert "T0K3N" not in shown
    assert SECRET not in shown
