"""What of a page needs its model at all: inputs that are not NULL, not met before, and not paid for before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pinnacle.runtime.held import Held
from pinnacle.runtime.memory import OutputMemory
from pinnacle.runtime.outcomes import Outcomes
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.scope import Scope


class Intake:
    """Settles the rows of a page whose output is known without a call."""

    def __init__(self, scope: Scope, outputs: OutputWriter, memory: OutputMemory | None = None) -> None:
        self._scope, self._outputs, self._memory = scope, outputs, memory or scope.memory
        self._under_way: dict[Any, tuple[Held, int]] = {}

    def sift(self, held: Held) -> Sequence[int]:
        """The positions whose inputs go to the model, one of each input; the rows that share it follow it.

        What of the page could not be read is set aside.
        """
        self._outputs.set_aside_unread(held.page)
        needed = self._distinct(held, self._without_nulls(held))
        may_be_bought = self._scope.settings.cache is not None and not self._scope.options.overwrite
        held.asked = self._without_bought(held, needed) if needed and may_be_bought else needed
        return held.asked

    def note(self, held: Held) -> None:
        """Inputs of a page went to the model, and pages that come before their outcomes may have the same."""
        for position, identity in zip(held.asked, held.identities(held.asked), strict=True):
            self._under_way[identity] = held, position

    def forget(self, held: Held, positions: Sequence[int]) -> None:
        """These have come back."""
        for identity in held.identities(positions) if self._under_way else ():
            self._under_way.pop(identity, None)

    def forget_all(self) -> None:
        """Nothing is under way any more."""
        self._under_way.clear()

    def _without_nulls(self, held: Held) -> list[int]:
        """Rows with a NULL input get their NULL output at once."""
        inputs, everything = held.page.inputs, list(range(len(held.page.inputs)))
        empty = self._nulls(inputs) if self._scope.model.skip_null else []
        if not empty:
            return everything
        self._scope.result.empty += len(empty)
        self._outputs.write(held, empty, [None] * len(empty))
        skipped = set(empty)
        return [i for i in everything if i not in skipped]

    def _nulls(self, inputs: Sequence[Any]) -> list[int]:
        if len(self._scope.target.info.fields.paths) > 1:
            return [i for i, values in enumerate(inputs) if any(value is None for value in values)]
        if type(None) not in set(map(type, inputs)):
            return []
        return [i for i, value in enumerate(inputs) if value is None]

    def _distinct(self, held: Held, needed: list[int]) -> list[int]:
        """One position for each input that is not remembered; rows whose input is get their output at once."""
        identities = held.identities(needed)
        if self._memory.knows_none_of(list(identities)) and self._under_way.keys().isdisjoint(identities):
            return needed
        owners: list[int] = []
        owner_of: dict[Any, int] = {}
        known: tuple[list[int], list[Any]] = ([], [])
        for position, identity in zip(needed, identities, strict=True):
            is_known, output = self._memory.get(identity)
            if is_known:
                known[0].append(position)
                known[1].append(output)
            elif identity in self._under_way:
                leader, place = self._under_way[identity]
                leader.others.setdefault(place, []).append((held, position))
            elif identity in owner_of:
                held.followers.setdefault(owner_of[identity], []).append(position)
            else:
                owner_of[identity] = position
                owners.append(position)
        if known[0]:
            self._scope.result.deduplicated += 0 if held.is_retried else len(known[0])
            self._outputs.write(held, *known)
        return owners

    def _without_bought(self, held: Held, needed: list[int]) -> list[int]:
        """Rows whose answer was paid for before get it."""
        bought = self._scope.account.bought([held.page.identities[i] for i in needed])
        known = [n for n, output in enumerate(bought) if output is not None]
        if not known:
            return needed
        self._scope.result.cached += len(known)
        self._outputs.settle(held, Outcomes([needed[n] for n in known], [bought[n] for n in known]), is_new=False)
        return [position for position in needed if position not in held.settled]
