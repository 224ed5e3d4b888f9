"""What a verification finds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One property that is not as the receipt says.

    :param where: the key of the object
    :param what: the property
    """

    where: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result for one snapshot.

    :param pages: the number of sound raw pages
    :param seconds: how long the verification took
    :param differences: by place; empty if the snapshot is what its receipt says
    :param skipped: what could not be checked, and why
    """

    snapshot: str
    files: int
    rows: int
    bytes: int
    pages: int
    seconds: float
    differences: tuple[Difference, ...]
    skipped: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """Collects differences from several tasks."""

    differences: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def compare(self, where: str, what: str, expected: object, found: object) -> bool:
        """Add a difference if the values differ; return whether they are equal."""
        if expected != found:
            self.differ(where, what, expected, found)
        return expected == found

    def differ(self, where: str, what: str, expected: object, found: object) -> None:
        """Add a difference."""
        self.differences.append(Difference(where, what, _text(expected), _text(found)))

    def skip(self, what: str) -> None:
        """Add what could not be checked, and why."""
        self.skipped.append(what)

    def sorted_differences(self) -> tuple[Difference, ...]:
        """By place: the order of the tasks must not show."""
        return tuple(sorted(self.differences))


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
