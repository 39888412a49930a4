"""How long a prediction waits for a provider, and when a row that meets no answer is itself to blame."""

from __future__ import annotations

from collections import Counter

from pinnacle.base.errors import ProviderUnavailable
from pinnacle.base.outages import THROTTLED, status_of
from pinnacle.base.rows import Key

FIRST_REST_S, LONGEST_REST_S = 0.25, 8.0
ROUNDS, JUDGED_ROUNDS = 5, 2
"""So often a row meets no answer while others do before it is set aside: outages pass, such rows do not."""


class Patience:
    """One prediction's patience with its model's provider."""

    def __init__(self, model: str, patience_s: float) -> None:
        self._model, self._patience_s = model, patience_s
        self._since: float | None = None
        self._rest_s = 0.0
        self._alone: Counter[Key] = Counter()

    def answered(self) -> None:
        """Note that the provider answers: what is met from now on is another outage."""
        self._since, self._rest_s = None, 0.0

    def rest_s(self, outage: BaseException, now: float) -> float:
        """Seconds to wait before the next call; ProviderUnavailable when an outage has lasted too long."""
        if self._since is None:
            self._since = now
        if now - self._since > self._patience_s:
            raise ProviderUnavailable(
                f"model {self._model!r} got no answer for {self._patience_s:g} s: {type(outage).__name__}: {outage}; "
                "what was computed is written, and the same call goes on from there"
            ) from outage
        self._rest_s = min(LONGEST_REST_S, max(FIRST_REST_S, 2 * self._rest_s))
        return max(FIRST_REST_S, min(self._rest_s, self._since + self._patience_s - now))

    def rounds_alone(self, key: Key, error: BaseException) -> int:
        """Note that a row met no answer while another input did; how often by now, if that is its own fault, else 0.

        One that was sent as often as requests are takes two rounds: an outage may have ended between its last try and
        another's answer, once.
        """
        if not may_be_its_own(error):
            return 0
        is_judged = isinstance(error, ProviderUnavailable)
        self._alone[key] += 1
        return self._alone[key] if self._alone[key] >= (JUDGED_ROUNDS if is_judged else ROUNDS) else 0


def may_be_its_own(error: BaseException) -> bool:
    """Whether a row that met no answer may itself be to blame: not for being too fast (429), nor for what was not
    sent."""
    is_unsent = isinstance(error, ProviderUnavailable) and not error.was_sent
    return not is_unsent and status_of(error) != THROTTLED
