"""What comes of a request: the page, an error, or what a fault makes of either. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from neows_async.sandbox import answers
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
    from neows_async.sandbox.answers import Answer
    from neows_async.sandbox.catalogue import Catalogue
    from neows_async.sandbox.page_json import Asked
    from neows_async.sandbox.rate_limits import Verdict
    from neows_async.sandbox.request import Request

_FORBIDDEN = 403


def refusal(verdict: Verdict, request: Request) -> Answer:
    """The gateway lets nobody through."""
    return with_quota(answers.by_gateway(verdict.status, verdict.code, as_html=request.wants_html), verdict)


def mistake(request: Request, *, right_path: bool) -> Answer:
    """What was asked for does not exist, or not in this way."""
    if not right_path:
        return answers.by_gateway(404, "NOT_FOUND", as_html=request.wants_html)
    if request.method != "GET":
        return answers.by_backend(405, f"Request method '{request.method}' not supported", request.path, request.key)
    return answers.by_backend(400, "page and size must be whole numbers, from 0 and from 1", request.path, request.key)


def instead(fault: Fault | None, verdict: Verdict, request: Request) -> Answer | None:
    """What comes instead of a page; None is nothing, the page comes."""
    match fault:
        case Outage():
            answer = answers.by_platform(503)
        case Status(shape="html"):
            answer = answers.by_platform(fault.status)
        case Status(shape="gateway"):
            answer = answers.by_gateway(fault.status, "INTERNAL_SERVER_ERROR", as_html=request.wants_html)
        case Status():
            answer = answers.by_backend(fault.status, "Something went wrong", request.path, request.key)
        case OverRateLimit():
            return answers.over_rate_limit(verdict.limit, fault.retry_after_s, as_html=request.wants_html)
        case Refused():
            return answers.by_gateway(_FORBIDDEN, fault.code, as_html=request.wants_html)
        case Html():
            answer = answers.maintenance_page()
        case Redirect():
            answer = answers.Answer(fault.status, b"", answers.HTML, (("location", fault.location),))
        case Replace():
            answer = answers.Answer(fault.status, fault.body.encode(), fault.content_type)
        case _:
            return None
    return with_quota(answer, verdict)


def page_under(fault: Fault | None, catalogue: Catalogue, asked: Asked) -> bytes:
    """The page, or what ``fault`` makes of it. Takes milliseconds."""
    match fault:
        case WrongPage():
            return browse_page(catalogue, replace(asked, number=_other(asked, fault)))
        case ShortPage():
            return browse_page(catalogue, asked, without_last_neos=fault.missing_neos)
        case TruncatedJson():
            whole = browse_page(catalogue, asked)
            return whole[: len(whole) // 2]
        case _:
            return browse_page(catalogue, asked)


def _other(asked: Asked, fault: WrongPage) -> int:
    return asked.number + 1 if fault.number is None else fault.number


def with_quota(answer: Answer, verdict: Verdict) -> Answer:
    """``answer`` with what the gateway says of the quota."""
    return replace(answer, headers=answer.headers + answers.rate_limit_headers(verdict))
