"""From a received page to a decoded page, in one call. Pure.

::

    RawPage ─ decompress ─ redact ─ check · decode ─► Page
                                  └ compress · seal ─► StoredPage, beside it or instead of it

The call takes milliseconds, so it runs in a thread or in a worker process: see :mod:`neows_async.pipeline.decoder`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.decode import PageJson, decode, decode_batch
from neows_async.errors import BadPageError
from neows_async.pages import stored
from neows_async.pages.content import decompress
from neows_async.pages.redact import Redactor
from neows_async.pages.values import StoredPage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.pages.values import Page, RawPage


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOptions:
    """How pages are received.

    :param api_key: the key to redact
    :param orbiting_body: see :func:`neows_async.endpoints.browse.decode.decode`
    :param max_body_bytes: the most bytes of a page's JSON
    :param keeps_json: set ``Page.source``, since the page will be stored, or a part needs its JSON
    """

    api_key: str = field(default="", repr=False)
    orbiting_body: str | None = None
    max_body_bytes: int = 64 << 20
    keeps_json: bool = False


class Receiver:
    """Turns received pages into decoded ones."""

    def __init__(self, options: ReceiveOptions) -> None:
        self._options = options
        self._redact = Redactor(options.api_key)

    def receive(self, page: RawPage | StoredPage, size: int | None) -> Page:
        """Decompress, redact, check, decode, and compress if the JSON is needed later.

        :param size: the page size that the run was planned with; None accepts any
        :raises BadPageError: it is not the whole page ``page.number``. If the page was not stored before, the error's
            ``body`` is the redacted body, for inspection
        """
        found, source = self._open(page)
        try:
            decoded = decode(found, size, orbiting_body=self._options.orbiting_body)
        except BadPageError as exc:
            raise _with_body(exc, found, source) from exc
        return self._with_source(decoded, found, source)

    def receive_batch(self, pages: Sequence[StoredPage], size: int | None) -> list[Page]:
        """:meth:`receive` for each page of an archive, in three quarters of the time."""
        # All are opened first: the columns are built once for the whole batch.
        opened = [self._open(page) for page in pages]
        decoded = decode_batch([found for found, _ in opened], size, orbiting_body=self._options.orbiting_body)
        return [self._with_source(page, *of) for page, of in zip(decoded, opened, strict=True)]

    def check(self, page: RawPage | StoredPage, size: int | None) -> StoredPage:
        """As :meth:`receive`, but only check the page and make it ready to be stored."""
        found, source = self._open(page)
        try:
            envelope.check(found.body, found.number, size)
        except BadPageError as exc:
            raise _with_body(exc, found, source) from exc
        return source or stored.store(*found)

    def _open(self, page: RawPage | StoredPage) -> tuple[PageJson, StoredPage | None]:
        """The page's redacted JSON; and the page itself if it can be stored as it is."""
        if isinstance(page, StoredPage):
            body = stored.json_of(page, self._options.max_body_bytes)
            # Its seal shows that it was redacted. A page from a caller's own source may have none.
            if stored.is_sound(page):
                return PageJson(page.number, body, page.sha256), page
        else:
            body = decompress(page.body, page.content_encoding, self._options.max_body_bytes)
        # Before the check: an error quotes the body, and a page is stored as soon as it is checked.
        body = self._redact(body)
        return PageJson(page.number, body, hashlib.sha256(body).digest()), None

    def _with_source(self, page: Page, found: PageJson, source: StoredPage | None) -> Page:
        return replace(page, source=source or stored.store(*found)) if self._options.keeps_json else page


def _with_body(exc: BadPageError, found: PageJson, source: StoredPage | None) -> BadPageError:
    return BadPageError(str(exc), body=b"" if source else found.body)
