"""The long form: ``make fuzz``. Ten thousand hostile responses, then fuzzing guided by coverage.

``python -m tests.fuzz [SECONDS [ANSWERS]]`` exits with 1 if anything was found. The input is then a file in
``.fuzz/found``. Copy one for the decoder to ``tests/fuzz/found/NAME.bin``: ``make test`` tries it from then on.
"""

from __future__ import annotations

import argparse
import importlib.util
import pickle
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import judging
from tests.fuzz.answers import answers, bodies

FOLDER: Final = Path(".fuzz")
_GUIDED_S: Final = 900
_ANSWERS: Final = 10_000
_MOST_RSS_BYTES: Final = 600 << 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Give hostile answers to what reads them."
    )
    parser.add_argument("seconds", type=int, nargs="?", default=_GUIDED_S, help="of fuzzing guided by coverage")
    parser.add_argument("answers", type=int, nargs="?", default=_ANSWERS, help="before it, and as many bodies")
    arguments = parser.parse_args()
    seconds, count = arguments.seconds, arguments.answers
    (FOLDER / "found").mkdir(parents=True, exist_ok=True)
    found = _answers(count) + _bodies(count)
    rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"most memory at any time: {rss_bytes / 1e6:.0f} MB")
    if rss_bytes > _MOST_RSS_BYTES:
        print(f"FINDING: more than {_MOST_RSS_BYTES / 1e6:.0f} MB")
        found += 1
    return 1 if found + _guided(seconds) else 0


def _settings(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _answers(count: int) -> int:
    """Whole responses, one to three before a good one, through source, gate, retries, check and decoder."""
    outcomes: Counter[str] = Counter()

    @_settings(count)
    @given(given_answers=st.lists(answers(), min_size=1, max_size=3), backend=st.sampled_from(["asyncio", "trio"]))
    def look(given_answers: list[list[bytes]], backend: str) -> None:
        outcomes["answers"] += len(given_answers)
        try:
            outcome = judging.outcome_of(given_answers, backend)
        except judging.FindingError as exc:
            _keep(pickle.dumps((backend, given_answers)), "answers", exc)
            outcomes["FINDING"] += 1
        else:
            outcomes[f"  {outcome.name}"] += 1

    began_s = time.perf_counter()
    look()
    _tell("runs over hostile answers", outcomes, time.perf_counter() - began_s)
    return outcomes["FINDING"]


def _bodies(count: int) -> int:
    """Bodies alone, through check and decoder."""
    outcomes: Counter[str] = Counter()

    @_settings(count)
    @given(body=bodies)
    def look(body: bytes) -> None:
        outcomes["bodies"] += 1
        try:
            page = judging.readable(body)
        except judging.FindingError as exc:
            _keep(body, "body", exc)
            outcomes["FINDING"] += 1
        else:
            outcomes["  refused" if page is None else "  rejects" if page.rejected else "  good"] += 1

    began_s = time.perf_counter()
    look()
    _tell("bodies", outcomes, time.perf_counter() - began_s)
    return outcomes["FINDING"]


def _guided(seconds: int) -> int:
    """libFuzzer, in a process of its own."""
    if importlib.util.find_spec("atheris") is None:
        print("Not fuzzed by coverage: there is no atheris for this machine.")
        return 0
    log = FOLDER / "guided.log"
    with log.open("w") as lines:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", str(FOLDER), str(seconds)],
            stdout=lines,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=seconds + 300,
        )
    lines_of_log = log.read_text(errors="replace").splitlines()
    print(f"\nguided by coverage, {seconds} s:")
    print("\n".join(line for line in lines_of_log if line.startswith("stat::") or " DONE " in line))
    if ended.returncode:
        print(f"FINDING: see {log} and {FOLDER / 'found'}")
    return 1 if ended.returncode else 0


def _keep(data: bytes, kind: str, exc: judging.FindingError) -> None:
    file = FOLDER / "found" / f"{kind}-{time.time_ns()}"
    file.write_bytes(data)
    print(f"FINDING: {exc}; the input is {file}")


def _tell(what: str, outcomes: Counter[str], took_s: float) -> None:
    print(f"\n{what}, in {took_s:.0f} s, {sum(outcomes[name] for name in outcomes if name[0] == ' ') / took_s:.0f}/s:")
    for name, count in sorted(outcomes.items()):
        print(f"  {count:7,} {name}")


if __name__ == "__main__":
    sys.exit(main())
