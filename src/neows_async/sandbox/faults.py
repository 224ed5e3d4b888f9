"""The response to a request: a page, an error, or a page changed by a fault. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from neows_async.sandbox import responses
from neows_async.sandbox.page_json import browse_page
from neows_async.sandbox.scenario import (
    Fault,
    Html,
    Outage,
    OverRateLimit,
    Redirect,
    Refused,
    Replace,
    ShortPage,
    Status,
    TruncatedJson,
    WrongPage,
)

if TYPE_CHECKING:
    from neows_async.sandbox.catalogue import Catalogue
    from neows_async.sandbox.page_json import BrowseRequest
    from neows_async.sandbox.rate_limits import Decision
    from neows_async.sandbox.request import Request
    from neows_async.sandbox.responses import SandboxResponse

_FORBIDDEN = 403


def refusal(decision: Decision, request: Request) -> SandboxResponse:
    """The gateway's own 403 or 429."""
    return with_quota(responses.by_gateway(decision.status, decision.code, as_html=request.wants_html), decision)


def bad_request(request: Request, *, is_browse: bool) -> SandboxResponse:
    """The error for a request that is not a valid one for Browse."""
    if not is_browse:
        return responses.by_gateway(404, "NOT_FOUND", as_html=request.wants_html)
    if request.method != "GET":
        return responses.by_backend(405, f"Request method '{request.method}' not supported", request.path, request.key)
    return responses.by_backend(
        400, "page and size must be whole numbers, from 0 and from 1", request.path, request.key
    )


def error_response(fault: Fault | None, decision: Decision, request: Request) -> SandboxResponse | None:
    """The response that ``fault`` sends in place of a page; None if the page is sent."""
    match fault:
        case Outage():
            response = responses.by_platform(503)
        case Status(shape="html"):
            response = responses.by_platform(fault.status)
        case Status(shape="gateway"):
            response = responses.by_gateway(fault.status, "INTERNAL_SERVER_ERROR", as_html=request.wants_html)
        case Status():
            response = responses.by_backend(fault.status, "Something went wrong", request.path, request.key)
        case OverRateLimit():
            # With its own headers: the request was not counted, so the usual ones would be wrong.
            return responses.over_rate_limit(decision.limit, fault.retry_after_s, as_html=request.wants_html)
        case Refused():
            return responses.by_gateway(_FORBIDDEN, fault.code, as_html=request.wants_html)
        case Html():
            response = responses.maintenance_page()
        case Redirect():
            response = responses.SandboxResponse(fault.status, b"", responses.HTML, (("location", fault.location),))
        case Replace():
            response = responses.SandboxResponse(fault.status, fault.body.encode(), fault.content_type)
        case _:
            return None
    return with_quota(response, decision)


def page_body(fault: Fault | None, catalogue: Catalogue, page_request: BrowseRequest) -> bytes:
    """The page, changed by ``fault``. Takes milliseconds."""
    match fault:
        case WrongPage():
            return browse_page(catalogue, replace(page_request, number=_wrong_number(page_request, fault)))
        case ShortPage():
            return browse_page(catalogue, page_request, without_last_neos=fault.missing_neos)
        case TruncatedJson():
            whole = browse_page(catalogue, page_request)
            return whole[: len(whole) // 2]
        case _:
            return browse_page(catalogue, page_request)


def _wrong_number(page_request: BrowseRequest, fault: WrongPage) -> int:
    return page_request.number + 1 if fault.number is None else fault.number


def with_quota(response: SandboxResponse, decision: Decision) -> SandboxResponse:
    """``response`` with the gateway's headers about the quota."""
    return replace(response, headers=response.headers + responses.rate_limit_headers(decision))
