"""HTTP for both APIs: answers, sending an answer, and resetting a connection."""

import os
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json; charset=UTF-8"
HTML = b"text/html;charset=UTF-8"
PLAIN = b"text/plain;charset=UTF-8"
XML = b"text/xml;charset=UTF-8"


class Answer(NamedTuple):
    status: int
    content_type: bytes
    body: bytes


class Reply(NamedTuple):
    """The outcome of a call: its answer (None: connection reset), delay in s, and counter."""

    answer: Answer | None
    outcome: str
    delay: float = 0.0
    search: str = ""


def text_answer(status: int, text: str, content_type: bytes = PLAIN) -> Answer:
    return Answer(status, content_type, text.encode())


def parameters(scope: Scope) -> dict[str, str]:
    """Return the parameters of the query string; UnicodeDecodeError for bytes not in UTF-8."""
    return dict(
        parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="strict")
    )


async def send_answer(answer: Answer, send: Send) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def cut(scope: Scope, receive: Receive) -> None:
    """End the connection with a TCP reset: with a linger time of zero, close sends RST."""
    transport = scope["extensions"]["mohe.transport"]
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=descriptor) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    # Wait until the server knows about the disconnection; it would answer 500 otherwise.
    while (await receive())["type"] != "http.disconnect":
        pass
