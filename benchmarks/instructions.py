"""How many instructions a page costs: a guard against getting slower that no clock and no neighbour disturbs.

    python benchmarks/instructions.py            print them
    python benchmarks/instructions.py --check    fail if one differs by more than 5 % from instructions.json
    python benchmarks/instructions.py --write    make today's the expected ones

Needs valgrind, whose callgrind counts while one thread decodes, scrubs and aggregates fixed pages. The
figures belong to one version of Python and of the libraries, and to one kind of processor: elsewhere the check says so
and passes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

EXPECTED: Final = Path(__file__).with_suffix(".json")
STAGES: Final = ("decode", "scrub", "aggregate")
SHARE: Final = 0.05
# Valgrind shows programs a processor of its own, which has these if the real one does, and nothing newer.
_FLAGS: Final = ("avx2",)


def main() -> int:
    if "--count" in sys.argv:
        _count()
        return 0
    lacking = [name for name in ("valgrind", "callgrind_control") if shutil.which(name) is None]
    if lacking:
        print(f"not counted: there is no {' and no '.join(lacking)} here")
        return 0
    counts = counted()
    if "--write" in sys.argv:
        EXPECTED.write_text(json.dumps({"for": made_for(), "instructions": counts}, indent=2) + "\n")
    return _compare(counts) if "--check" in sys.argv else _show(counts)


def counted() -> dict[str, int]:
    """Instructions by stage, for one page each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        with subprocess.Popen(
            [*valgrind, sys.executable, __file__, "--count"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        ) as counting:
            if counting.stdin is None or counting.stdout is None:
                raise RuntimeError("no pipes")

            def control(what: str) -> None:
                subprocess.run(["callgrind_control", what, str(counting.pid)], check=True, capture_output=True)  # noqa: S607 - found above

            for stage in ("ready", *STAGES):
                if stage != "ready":
                    control("--instr=on")
                    control("--zero")
                    print(stage, file=counting.stdin, flush=True)
                if counting.stdout.readline().strip() != stage:
                    raise RuntimeError(f"the counted program ended before {stage}")
                if stage != "ready":
                    control(f"--dump={stage}")
                    control("--instr=off")
            counting.stdin.close()
        texts = [path.read_text() for path in Path(folder).glob("out.*")]
    found = [re.search(r"desc: Trigger: dump (\w+).*^totals: (\d+)", text, re.DOTALL | re.MULTILINE) for text in texts]
    return {stage: next(int(one[2]) for one in found if one and one[1] == stage) for stage in STAGES}


def _count() -> None:
    """In valgrind: do each stage once when it is named."""
    from benchmarks.measured import server  # noqa: PLC0415 - only here
    from neows_async.endpoints.browse.decode import PageJson, decode  # noqa: PLC0415 - as above
    from neows_async.outputs import close_approaches  # noqa: PLC0415 - as above
    from neows_async.pages.redact import Redactor  # noqa: PLC0415 - as above

    body = b"".join(server.answer(server.templates(1)[0], 0, 1)[1:])
    scrub = Redactor("0123456789abcdefghijABCDEFGHIJ0123456789")
    page = decode(PageJson(0, scrub(body), b""), 20)

    def aggregate() -> None:
        for aggregator in (
            close_approaches.CloseApproachesWithin(0.2, None),
            close_approaches.CloseApproachesByYear(None),
        ):
            aggregator.update(page.batches)
            aggregator.result()

    stages = {
        "decode": lambda: decode(PageJson(0, body, hashlib.sha256(body).digest()), 20),
        "scrub": lambda: scrub(body),
        "aggregate": aggregate,
    }
    aggregate()
    print("ready", flush=True)
    for line in sys.stdin:
        stages[line.strip()]()
        print(line.strip(), flush=True)


def made_for() -> dict[str, str]:
    """What the figures belong to."""
    from neows_async.endpoints.browse.approach_scan import IS_COMPILED  # noqa: PLC0415 - only here

    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return {
        "python": platform.python_version(),
        "lists": "compiled" if IS_COMPILED else "read as JSON",
        "machine": " ".join([platform.machine(), *(flag for flag in _FLAGS if flag in flags)]),
        **{name: version(name) for name in ("msgspec", "numpy", "pyarrow")},
    }


def _show(counts: dict[str, int]) -> int:
    for stage, count in counts.items():
        print(f"{stage:12}{count:14,} instructions a page")
    return 0


def _compare(counts: dict[str, int]) -> int:
    expected = json.loads(EXPECTED.read_text())
    if expected["for"] != made_for():
        print(f"not compared: the figures are for {expected['for']}, this is {made_for()}")
        return 0
    status = 0
    for stage, count in counts.items():
        share = count / expected["instructions"][stage] - 1
        wrong = abs(share) > SHARE
        status |= wrong
        print(f"{stage:12}{count:14,} instructions a page, {share:+.1%}{'  TOO FAR' if wrong else ''}")
    if status:
        print("If that is meant, say why in the commit and run: python benchmarks/instructions.py --write")
    return status


if __name__ == "__main__":
    sys.exit(main())
