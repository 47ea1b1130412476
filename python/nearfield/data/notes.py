"""A log of findings that stays small however broken the data is."""

from __future__ import annotations

from nearfield.data.dataset import Finding, Severity

# Twenty examples show the pattern; five million of them would fill the memory.
EXAMPLES = 20


class Notes:
    """Collects findings, the first 20 of each kind and file in full and the rest as a count.

    >>> notes = Notes()
    >>> for row in range(1, 31):
    ...     notes.add("empty-text", "a.jsonl", f"a.jsonl:{row}", "empty text, row left out")
    >>> [len(notes.findings()), notes.findings()[-1].message]
    [21, '10 more of kind empty-text, not listed']
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[Finding]] = {}
        self._count: dict[tuple[str, str], int] = {}

    def add(self, kind: str, scope: str, where: str, message: str, severity: Severity = "error") -> None:
        """Records one finding; ``scope`` is the file (or part of the data) that the count of the rest is given for."""
        key = (kind, scope)
        self._count[key] = self._count.get(key, 0) + 1
        if self._count[key] <= EXAMPLES:
            self._found.setdefault(key, []).append(Finding(kind, where, message, severity))

    def count(self, kind: str) -> int:
        """Returns how many findings of ``kind`` were added, listed or not."""
        return sum(n for (name, _), n in self._count.items() if name == kind)

    def errors(self, scope: str) -> int:
        """Returns how many errors were added for ``scope``; while reading, an error is a row left out."""
        errors = (key for key, found in self._found.items() if key[1] == scope and found[0].severity == "error")
        return sum(self._count[key] for key in errors)

    def first(self) -> Finding | None:
        """Returns the first error recorded, or None."""
        return next((f for found in self._found.values() for f in found if f.severity == "error"), None)

    def findings(self) -> list[Finding]:
        """Returns what was recorded, kinds in the order of their first appearance."""
        result: list[Finding] = []
        for key, found in self._found.items():
            result += found
            if self._count[key] > EXAMPLES:
                message = f"{self._count[key] - EXAMPLES:,} more of kind {key[0]}, not listed"
                result.append(Finding(key[0], key[1], message, found[0].severity))
        return result
