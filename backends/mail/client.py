"""Sends mails.

Guard against sessions into our own network, unless a channel allows it: every address of the
server's name must be public, and the connection goes to the address that was checked.
STARTTLS is required where it is asked for: a server that does not offer it gets nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import socket
import ssl

import aiosmtplib

from meterline.backends.loop_thread import LoopThread
from meterline.backends.mail.messages import (
    MailAnswer,
    MailRequest,
    SmtpForbiddenError,
    SmtpUnreachableError,
)

_OK = 250


class SmtpClient:
    """Sends from a thread of its own, so that a server that hangs blocks no caller."""

    def __init__(self, timeout_seconds: float = 15, ca_file: str = "") -> None:
        """Start the thread.

        Args:
            timeout_seconds: for a whole attempt, from the look-up of the name to QUIT.
            ca_file: PEM file of certificate authorities trusted beside the system's.
        """
        self._timeout_seconds = timeout_seconds
        self._tls = ssl.create_default_context()
        if ca_file:
            self._tls.load_verify_locations(ca_file)
        self._thread = LoopThread("mail")

    def send(self, request: MailRequest) -> concurrent.futures.Future[MailAnswer]:
        """Send one attempt; the future holds the answer, or raises MailError."""
        return self._thread.start(self._send(request))

    def close(self) -> None:
        """Abandon what is under way and end the thread; idempotent."""
        self._thread.close()

    async def _send(self, request: MailRequest) -> MailAnswer:
        try:
            return await asyncio.wait_for(self._session(request), self._timeout_seconds)
        except TimeoutError as error:
            message = f"no answer from {request.host} within {self._timeout_seconds:g} s"
            raise SmtpUnreachableError(message) from error

    async def _session(self, request: MailRequest) -> MailAnswer:
        connection = await _connected(request)
        client = aiosmtplib.SMTP(
            hostname=request.host,
            sock=connection,
            use_tls=request.tls == "tls",
            start_tls=request.tls == "starttls",
            tls_context=self._tls,
            timeout=self._timeout_seconds,
            # The default asks the name service, which may hang.
            local_hostname="meterline.invalid",
        )
        try:
            await client.connect()
            if request.username:
                await client.login(request.username, request.password)
            refused, _ = await client.sendmail(
                request.sender, list(request.recipients), request.content
            )
            return MailAnswer(_OK, refused=tuple(sorted(refused)))
        except aiosmtplib.SMTPRecipientsRefused as error:
            # Where one of them may be taken later, all may be tried later.
            codes = [each.code for each in error.recipients]
            return MailAnswer(min(codes), "the recipients")
        except aiosmtplib.SMTPResponseException as error:
            return MailAnswer(error.code, _ABOUT.get(type(error), "the session"))
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # The driver's text may quote what was sent: its class says what happened.
            message = f"no session with {request.host}: {type(error).__name__}"
            raise SmtpUnreachableError(message) from error
        finally:
            # QUIT is a courtesy; a server that hangs at it has the mail already. So is the end of
            # TLS: a server that does not answer it would keep the socket for half a minute.
            transport = client.transport
            client.close()
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()


_ABOUT: dict[type[aiosmtplib.SMTPException], str] = {
    aiosmtplib.SMTPAuthenticationError: "the password",
    aiosmtplib.SMTPSenderRefused: "the sender",
    aiosmtplib.SMTPDataError: "the content",
    aiosmtplib.SMTPConnectResponseError: "the connection",
    aiosmtplib.SMTPHeloError: "the greeting",
}


async def _connected(request: MailRequest) -> socket.socket:
    """A socket to a checked address of the server, not blocking."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(request.host, request.port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"{request.host} cannot be looked up"
        raise SmtpUnreachableError(message) from error
    if not request.allow_private_address and not all(_is_public(each[4][0]) for each in found):
        message = f"{request.host} leads to an address that is not public"
        raise SmtpForbiddenError(message)
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(0)
        try:
            await loop.sock_connect(connection, address)
        except OSError:
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    message = f"no answer from {request.host} on port {request.port}"
    raise SmtpUnreachableError(message)


def _is_public(address: str | int) -> bool:
    try:
        found = ipaddress.ip_address(str(address).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_global and not found.is_multicast
