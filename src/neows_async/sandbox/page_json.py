"""The JSON of a Browse page: its links, which hold the client's key, its totals, and its objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from neows_async.sandbox.catalogue import Catalogue, CatalogueEntry

API: Final = "/neo/rest/v1"


@dataclass(frozen=True, slots=True, repr=False)
class BrowseRequest:
    """A request for a page.

    :param number: from 0
    :param size: objects a page
    :param host: the ``Host`` header, used in links
    :param key: the client's key, which NASA puts into every link
    """

    number: int
    size: int
    host: str
    key: str


def browse_page(catalogue: Catalogue, request: BrowseRequest, *, without_last_neos: int = 0) -> bytes:
    """The JSON of one page. Beyond the last page the list is empty, in the same envelope.

    :param without_last_neos: the number of objects to leave out, though the totals include them
    """
    total, number, size = catalogue.total, request.number, request.size
    pages = -(-total // size)
    links = {}
    if number + 1 < pages:
        links["next"] = _page_link(request, number + 1)
    if number > 0:
        links["prev"] = _page_link(request, number - 1)
    links["self"] = _page_link(request, number)
    entries = catalogue.entries(number * size, (number + 1) * size)
    if without_last_neos:
        entries = entries[:-without_last_neos]
    page = {"size": size, "total_elements": total, "total_pages": pages, "number": number}
    return b'{"links":%b,"page":%b,"near_earth_objects":[%b]}' % (
        msgspec.json.encode(links),
        msgspec.json.encode(page),
        b",".join(_with_links(entry, request) for entry in entries),
    )


def _page_link(request: BrowseRequest, number: int) -> str:
    return f"{_base(request)}/browse?page={number}&size={request.size}&api_key={quote(request.key, safe='')}"


def _with_links(entry: CatalogueEntry, request: BrowseRequest) -> bytes:
    if not entry.body.startswith(b"{"):
        return entry.body
    link = f"{_base(request)}/{quote(entry.id, safe='')}?api_key={quote(request.key, safe='')}"
    rest = entry.body[1:].lstrip()
    return b'{"links":%b%b%b' % (msgspec.json.encode({"self": link}), b"" if rest == b"}" else b",", rest)


def _base(request: BrowseRequest) -> str:
    return f"http://{request.host}{API}/neo"
