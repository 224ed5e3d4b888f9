"""How long each pure step holds a thread, for a page of a megabyte. Decoding may take 4 ms.

The pages are synthetic, or those in the folder that is named: ``python benchmarks/decode.py FOLDER``, of
``*.json.gz``.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measured import server
from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.decode import PageJson, decode
from neows_async.pages.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 20


def main() -> None:
    if len(sys.argv) > 1:
        bodies = [gzip.decompress(path.read_bytes()) for path in sorted(Path(sys.argv[1]).glob("*.json.gz"))]
    else:
        made = server.templates(10)
        bodies = [b"".join(server.answer(template, number, 10)[1:]) for number, template in enumerate(made)]
    if not bodies:
        sys.exit(f"No *.json.gz in {sys.argv[1]}: name a folder of Browse pages.")
    scrub = Redactor("k" * 40)
    numbers = [envelope.split(body)[0].number for body in bodies]
    pages = [PageJson(number, body, b"") for number, body in zip(numbers, bodies, strict=True)]
    steps: dict[str, Callable[[], object]] = {
        "scrub": lambda: [scrub(body) for body in bodies],
        "check": lambda: [envelope.check(body, number) for number, body in zip(numbers, bodies, strict=True)],
        "decode": lambda: [decode(page, None) for page in pages],
    }
    mb = sum(map(len, bodies)) / 1e6
    print(f"{len(bodies)} pages, {mb:.2f} MB; {ROUNDS} rounds, ms a MB")
    print(f"{'step':10}{'best':>8}{'median':>8}{'worst':>8}")
    for name, step in steps.items():
        times_ms = [_time_ms(step) / mb for _ in range(ROUNDS)]
        print(f"{name:10}{min(times_ms):8.2f}{statistics.median(times_ms):8.2f}{max(times_ms):8.2f}")


def _time_ms(step: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    step()
    return (time.perf_counter() - began_s) * 1000


if __name__ == "__main__":
    main()
