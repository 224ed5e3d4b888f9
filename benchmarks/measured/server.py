"""Serves Browse pages from memory, as cheaply as Python can: ``server.py [LATENCY_S]`` prints its port.

A thread a connection, blocking calls and nothing in between, since what it costs is taken from those who
are measured. The pages are those of the synthetic catalogue, about 0.93 MB each with all links: so many
distinct ones are made beforehand, and the others have the same objects under other ids.

``GET /pages/N/neo/rest/v1/neo/browse?page=…`` is a catalogue of N pages, so that one server has all sizes.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from typing import Final

from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.page_json import BrowseRequest, browse_page

PAGE_SIZE: Final = 20
DISTINCT: Final = 100
APPROACHES: Final = 106
_FIRST_ID: Final = 90_000_001
_REQUEST: Final = re.compile(rb"GET /pages/(\d+)/.*?[?&]page=(\d+)")
_LIST: Final = b'"near_earth_objects":['
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: %d\r\n"
    b"X-RateLimit-Limit: 1000000000\r\nX-RateLimit-Remaining: 999999999\r\n\r\n"
)

# What lies between the ids, and which id stands there, counted within the page.
Template = tuple[list[bytes], list[int]]


def templates(distinct: int = DISTINCT) -> list[Template]:
    """The distinct pages, cut at their ids."""
    catalogue = SyntheticCatalogue(distinct * PAGE_SIZE, approaches=APPROACHES)
    made = []
    for number in range(distinct):
        page = browse_page(
            catalogue, BrowseRequest(number, PAGE_SIZE, "127.0.0.1", "benchmark-key-of-forty-characters-000000")
        )
        objects = page[page.index(_LIST) :]
        first = _FIRST_ID + number * PAGE_SIZE
        ids = re.compile(b"(?<![0-9])(?:%b)(?![0-9])" % b"|".join(b"%d" % (first + at) for at in range(PAGE_SIZE)))
        made.append((ids.split(objects), [int(found) - first for found in ids.findall(objects)]))
    return made


def answer(template: Template, number: int, pages: int) -> list[bytes]:
    """Head and body of page ``number`` of ``pages``, in pieces: joining them would cost a copy."""
    pieces, which = template
    ids = [b"%d" % (_FIRST_ID + number * PAGE_SIZE + index) for index in range(PAGE_SIZE)]
    info = {"size": PAGE_SIZE, "total_elements": pages * PAGE_SIZE, "total_pages": pages, "number": number}
    parts = [b"", b'{"links":{},"page":%b,' % json.dumps(info).encode(), pieces[0]]
    for index, piece in zip(which, pieces[1:], strict=True):
        parts += (ids[index], piece)
    parts[0] = _HEAD % sum(map(len, parts))
    return parts


def serve(connection: socket.socket, made: list[Template], latency_s: float) -> None:
    """One connection, until the other side closes it."""
    pause = threading.Event()
    received = b""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while b"\r\n\r\n" not in received:
                try:
                    chunk = connection.recv(65_536)
                except ConnectionError:  # the other side was cancelled
                    return
                if not chunk:
                    return
                received += chunk
            request, _, received = received.partition(b"\r\n\r\n")
            found = _REQUEST.match(request)
            if found is None:
                raise RuntimeError(f"not a request for a page: {request[:80]!r}")
            asked_s = time.monotonic()
            parts = answer(made[int(found[2]) % DISTINCT], int(found[2]), int(found[1]))
            if latency_s:  # until the first byte, so what went into making the answer is part of it
                pause.wait(asked_s + latency_s - time.monotonic())
            try:
                # Of a socket that blocks the kernel takes all.
                connection.sendmsg(parts)
            except ConnectionError:
                return


def main() -> None:
    latency_s = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    made = templates()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection, made, latency_s), daemon=True).start()


if __name__ == "__main__":
    main()
