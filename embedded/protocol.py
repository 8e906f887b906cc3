"""Does a Kafka broker answer? One ApiVersions request, encoded here: no client library is needed."""

import socket
import struct

from meterline.embedded.processes import LOCALHOST

# ApiVersions (key 18) version 0: every broker since 0.10 answers it, before anything else works.
_CORRELATION_ID = 1
_CLIENT = b"ready"
_REQUEST_BODY = struct.pack(">hhih", 18, 0, _CORRELATION_ID, len(_CLIENT)) + _CLIENT
_REQUEST = struct.pack(">i", len(_REQUEST_BODY)) + _REQUEST_BODY
# One answer takes microseconds; a broker that is still starting is asked again by the caller.
ANSWER_TIMEOUT_SECONDS = 1.0
# size, correlation id, error code
_HEADER = struct.Struct(">iih")


def answers_kafka(port: int) -> bool:
    """Whether a broker on 127.0.0.1:`port` answers ApiVersions without an error."""
    try:
        with socket.create_connection((LOCALHOST, port), ANSWER_TIMEOUT_SECONDS) as connection:
            connection.settimeout(ANSWER_TIMEOUT_SECONDS)
            connection.sendall(_REQUEST)
            answer = b""
            while len(answer) < _HEADER.size:
                received = connection.recv(_HEADER.size - len(answer))
                if not received:
                    return False
                answer += received
    except OSError:
        return False
    _, correlation_id, error_code = _HEADER.unpack(answer)
    return bool(correlation_id == _CORRELATION_ID and error_code == 0)
