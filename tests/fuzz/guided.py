"""Coverage-guided fuzzing of what reads a body: ``python -m tests.fuzz.guided FOLDER SECONDS``.

A process of its own, since libFuzzer ends the one it runs in. Its findings are files in ``FOLDER/found``.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any, Final

import atheris

with atheris.instrument_imports(include=["neows_async"]):
    from tests.fuzz import judging
from tests.fuzz.answers import LITERALS, good_body
from tests.neos import approach, neo

RECORDED: Final = Path(__file__).parents[3] / "shared" / "data" / "neows-2026-03-01"
_OBJECTS: Final = 3
_APPROACHES: Final = 2
_MAX_BYTES: Final = 8_192
_WORD_BYTES: Final = 60


def seeds() -> list[bytes]:
    """Good pages, small: made up, and the recorded ones with two approaches to an object, as they lie there."""
    made = [good_body(), page([]), page([{"name": "x", "id": "1"}]), page([neo(1, [approach()], more={"x": 1})])]
    if not RECORDED.is_dir():
        return made
    for file in sorted(RECORDED.glob("page_*.json.gz")):
        objects = json.loads(gzip.decompress(file.read_bytes()))["near_earth_objects"][:_OBJECTS]
        for entry in objects:
            entry["close_approach_data"] = entry["close_approach_data"][:_APPROACHES]
        made += [page(objects[:1]), page(objects[1:2]), page(objects[2:])]
    return made


def page(objects: list[dict[str, Any]]) -> bytes:
    info = {"size": max(1, len(objects)), "total_elements": len(objects), "total_pages": 1, "number": 0}
    return json.dumps({"links": {}, "page": info, "near_earth_objects": objects}, separators=(",", ":")).encode()


def _dictionary() -> str:
    words = {literal.encode(errors="surrogatepass") for literal in LITERALS}
    words |= {json.dumps(name).encode() for seed in seeds()[:1] for name in _names(json.loads(seed))}
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words) if 0 < len(word) <= _WORD_BYTES)
    return "".join(f'"{word}"\n' for word in escaped)


def _names(value: Any) -> set[str]:
    beneath = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set(value if isinstance(value, dict) else ()).union(*(_names(entry) for entry in beneath))


def look(body: bytes) -> None:
    """One execution."""
    judging.readable(body)


def main() -> None:
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    corpus, found = folder / "corpus", folder / "found"
    for one in (corpus, found):
        one.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    (folder / "words").write_text(_dictionary())
    atheris.Setup(
        [
            sys.argv[0],
            *(f"-max_total_time={seconds}", f"-max_len={_MAX_BYTES}", "-len_control=0", "-timeout=10"),
            *("-rss_limit_mb=2048", f"-dict={folder / 'words'}", f"-artifact_prefix={found}/", "-print_final_stats=1"),
            str(corpus),
        ],
        look,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
