"""A Browse page around its objects: the links, which carry the caller's key, and what is announced. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from neows_async.sandbox.catalogue import Catalogue, Entry

API: Final = "/neo/rest/v1"


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """Which page, and what its links are made of.

    :param number: from 0
    :param size: objects a page
    :param host: as the caller called us
    :param key: the caller's; the source puts it into every link
    """

    number: int
    size: int
    host: str
    key: str


def browse_page(catalogue: Catalogue, asked: Asked, *, without_last_neos: int = 0) -> bytes:
    """The JSON of one page. Beyond the last page the list is empty, in the same envelope.

    :param without_last_neos: leave so many objects out, though they are announced
    """
    total, number, size = catalogue.total, asked.number, asked.size
    pages = -(-total // size)
    links = {}
    if number + 1 < pages:
        links["next"] = _page_link(asked, number + 1)
    if number > 0:
        links["prev"] = _page_link(asked, number - 1)
    links["self"] = _page_link(asked, number)
    entries = catalogue.entries(number * size, (number + 1) * size)
    if without_last_neos:
        entries = entries[:-without_last_neos]
    page = {"size": size, "total_elements": total, "total_pages": pages, "number": number}
    return b'{"links":%b,"page":%b,"near_earth_objects":[%b]}' % (
        msgspec.json.encode(links),
        msgspec.json.encode(page),
        b",".join(_with_links(entry, asked) for entry in entries),
    )


def _page_link(asked: Asked, number: int) -> str:
    return f"{_base(asked)}/browse?page={number}&size={asked.size}&api_key={quote(asked.key, safe='')}"


def _with_links(entry: Entry, asked: Asked) -> bytes:
    if not entry.body.startswith(b"{"):
        return entry.body
    link = f"{_base(asked)}/{quote(entry.id, safe='')}?api_key={quote(asked.key, safe='')}"
    rest = entry.body[1:].lstrip()
    return b'{"links":%b%b%b' % (msgspec.json.encode({"self": link}), b"" if rest == b"}" else b",", rest)


def _base(asked: Asked) -> str:
    return f"http://{asked.host}{API}/neo"
