"""Union-find: which items belong together once pairs of them do."""

from __future__ import annotations


class Union:
    """Union-find over ``0..n-1``; the smallest member names a cluster, so that the result does not depend on the order of joins."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        """Returns the smallest member of the cluster of ``i``."""
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Makes one cluster of those of ``i`` and ``j``."""
        a, b = self.find(i), self.find(j)
        self.parent[max(a, b)] = min(a, b)

    def clusters(self) -> list[list[int]]:
        """Returns the clusters with more than one member, each sorted, in the order of their smallest members."""
        members: dict[int, list[int]] = {}
        for i in range(len(self.parent)):
            members.setdefault(self.find(i), []).append(i)
        return [cluster for cluster in members.values() if len(cluster) > 1]
