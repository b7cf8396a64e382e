"""A store in one file, as somebody else would write it: it gets all tests of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from arraylstm_serve.stores.base import Change, Loaded, Outcome, Store, judge


class ToyStore(Store):
    """Keeps records in a list of pairs, and forgets the time."""

    def __init__(self) -> None:
        super().__init__(ttl=1.0)
        self.pairs: list[tuple[str, bytes]] = []

    def describe(self) -> str:
        """Say what this is."""
        return "toy"

    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        return {key: dict(self.pairs).get(key) for key in keys}

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        return [self._change(change) for change in changes]

    async def _close(self) -> None:
        self.pairs = []

    def _change(self, change: Change) -> Outcome:
        verdict = judge(dict(self.pairs).get(change.key), change)
        if verdict != "apply":
            return verdict
        self.pairs = [pair for pair in self.pairs if pair[0] != change.key]
        if change.record is not None:
            self.pairs.append((change.key, change.record))
        return "applied"
