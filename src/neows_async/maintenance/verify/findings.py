"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One thing that is not as the receipt says.

    :param where: the key of the object
    :param what: the property of it
    """

    where: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome for one snapshot.

    :param pages: raw pages that were read and are right
    :param seconds: how long it took
    :param differences: by place; empty means that the snapshot is what its receipt says
    :param skipped: what could not be held against anything, and why
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
    """Collects differences, from several tasks."""

    differences: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def compare(self, where: str, what: str, expected: object, found: object) -> bool:
        """Note a difference, if there is one; whether they are equal."""
        if expected != found:
            self.differ(where, what, expected, found)
        return expected == found

    def differ(self, where: str, what: str, expected: object, found: object) -> None:
        """Note a difference."""
        self.differences.append(Difference(where, what, _told(expected), _told(found)))

    def skip(self, what: str) -> None:
        """Note what could not be verified, and why."""
        self.skipped.append(what)

    def sorted_differences(self) -> tuple[Difference, ...]:
        """By place, whatever the order in which they were found."""
        return tuple(sorted(self.differences))


def _told(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
