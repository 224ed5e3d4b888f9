"""What an object store's error means for a lake, without the response's body, which may hold a key or token."""

from __future__ import annotations

import re
from typing import Final

from neows_async.errors import NotFoundError, StorageError

_CODE: Final = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_HEAD_CHARS: Final = 300

_RIGHTS: Final = "the key needs the rights to list the bucket and to get, put and delete objects"
_CODES: Final = {
    "NoSuchBucket": "there is no such bucket; create it, or correct the root",
    "AccessDenied": f"access denied; {_RIGHTS}",
    "AllAccessDisabled": f"access denied; {_RIGHTS}",
    "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the credentials have expired; get new ones, then run the same command again",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it, then run the same command again",
    "PermanentRedirect": "the bucket is in another region; add ?region=… to the root",
    "AuthorizationHeaderMalformed": "the bucket is in another region; add ?region=… to the root",
    "SlowDown": "too many requests; lower the concurrency and run the same command again",
    "QuotaExceeded": "the quota is exceeded; free some space, then run the same command again",
    "XMinioStorageFull": "the store is full; free some space, then run the same command again",
    "NotImplemented": "the store does not support this request; it needs conditional puts (If-None-Match, If-Match)",
}
_STATUSES: Final = {
    "301": _CODES["PermanentRedirect"],
    "403": _CODES["AccessDenied"],
    "429": _CODES["SlowDown"],
    "501": _CODES["NotImplemented"],
    "503": _CODES["SlowDown"],
    "507": _CODES["XMinioStorageFull"],
}
_SIGNS: Final = (
    ("External AWS credential provider", "the AWS profile gives no credentials; log in again"),
    ("169.254.", "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give it a role"),
    ("dns error", "its name does not resolve; check the endpoint and the region"),
    ("kind: Connect", "it cannot be reached; check the network and the endpoint, then run the same command again"),
    ("kind: Timeout", "no response in time; run the same command again"),
    ("kind: Request", "the connection broke; run the same command again"),
    ("kind: Interrupted", "the connection broke; run the same command again"),
    # Of a multipart upload the client reports no more.
    ("error sending request", "no response; check the network and the endpoint, then run the same command again"),
)


def object_error(exc: Exception, *, doing: str, uri: str, reading: bool) -> StorageError:
    """``exc`` of the client as one line that names the object, the cause and the remedy.

    Its ``__cause__`` is the client's own error, without the response's body.

    :param doing: the verb, as in "cannot *write* …"
    :param reading: a missing object is a :class:`NotFoundError`
    """
    text = str(exc)
    found = _CODE.search(text)
    code = (found[1] or found[2]) if found else None
    error: StorageError
    if isinstance(exc, FileNotFoundError) and code != "NoSuchBucket" and reading:
        error = NotFoundError(f"{uri}: no such object")
    else:
        error = StorageError(f"cannot {doing} {uri}: {_meaning(text, code)}")
    error.__cause__ = type(exc)(_without_body(text))
    return error


def _meaning(text: str, code: str | None) -> str:
    if code in _CODES:
        return _CODES[code]
    status = _STATUS.search(text)
    if status and status[1] in _STATUSES:
        return _STATUSES[status[1]]
    if status:
        return f"the store returned status {status[1]}{f' ({code})' if code else ''}; run the same command again"
    for sign, meaning in _SIGNS:
        if sign in text:
            return meaning
    return _without_body(text)


def _without_body(text: str) -> str:
    head = text.partition("\n\nDebug source")[0].partition("<")[0]
    return " ".join(head.split())[:_HEAD_CHARS].rstrip(": ")
