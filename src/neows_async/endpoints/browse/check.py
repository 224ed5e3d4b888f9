"""What came from a source, and whether it may go on: scrubbed, whole, and the page that was asked for. Pure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError
from neows_async.pages.stored import StoredPage
from neows_async.pages.values import RawPage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.pages.redact import Redactor
    from neows_async.pages.values import Page


def scrubbed(came: RawPage, scrubber: Redactor) -> RawPage:
    """What came, without keys. Takes half a millisecond; a page that was kept was scrubbed before."""
    return came if isinstance(came, StoredPage) else RawPage(came.number, scrubber(came.body), came.rate_limit)


def take_in(
    came: RawPage, size: int | None, scrubber: Redactor, read: Callable[[RawPage, int | None], Page] | None = None
) -> RawPage:
    """What came, without keys, if it is the whole, right page. Pure; takes milliseconds.

    :param read: checks and decodes in one go, for a page that is wanted soon; None only checks
    :raises BadPageError: it is not
    """
    return judged(scrubbed(came, scrubber), size, read)


def judged(raw: RawPage, size: int | None, read: Callable[[RawPage, int | None], Page] | None = None) -> RawPage:
    """The same of what is scrubbed already."""
    with attaching_body(raw):
        if read is not None:
            return raw.with_decoded(read(raw, size))
        envelope.check(raw.body, raw.number, size)
    return raw


@contextmanager
def attaching_body(raw: RawPage) -> Iterator[None]:
    """A BadPageError of the block comes out with the scrubbed body, kept for inspection unless it is kept already."""
    try:
        yield
    except BadPageError as exc:
        raise BadPageError(str(exc), body=b"" if isinstance(raw, StoredPage) else raw.body) from exc
