"""What all models behind an interface share: the account, the limits, the price, and how one request is sent."""

from __future__ import annotations

import contextvars
import copy
import dataclasses
import inspect
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar, Self, TypeVar

from pinnacle.base import forks, loop
from pinnacle.base.destinations import SECRET_PREFIX, Destination
from pinnacle.base.errors import AccountRefused, ConfigError
from pinnacle.base.redaction import hide, literal_in
from pinnacle.components.component import (
    code_of,
    content_fields,
    literal_secrets,
    operational,
    resolved_secret,
    secret,
    secret_names_in,
    with_secrets,
)
from pinnacle.llm.limiter import RateLimit, account_of, check_rate_limit, gate_of
from pinnacle.llm.metered import MeteredModel, check_whole
from pinnacle.llm.prices import Price, price_of
from pinnacle.llm.sending import Answered, Call, Sender
from pinnacle.llm.threads import CallThreads

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

STEERING = frozenset({"inference_kwargs"})
"""Fields of pinnacle's own whose values reach a class's code, which may take an address from them."""

MARGIN_S, MARGIN_SHARE = 0.005, 0.005


@dataclasses.dataclass
class HostedModel(MeteredModel):
    """A model behind an interface, under limits and at a price.

    ``max_batch_size``: requests in flight, exactly, in this process. ``rate_limit``: (n, seconds), at most n
    starts in any so many seconds, together with all models that share the provider and key; without one the
    pace is learned from answers. ``cost``: US dollars a token, (input, output), (input, output, cached input) or one
    number for input. ``timeout_s``: for one request. ``max_tries``: requests for one answer that met none before it
    counts as an outage. ``api_key``: ``"env:NAME"``, or the key itself, which is then never stored.
    """

    is_paid: ClassVar[bool] = True

    _: dataclasses.KW_ONLY
    api_key: str | None = secret()
    max_batch_size: int = operational(64)
    rate_limit: Any = operational(None)
    cost: Any = operational(None)
    timeout_s: float = operational(120.0)
    max_tries: int = operational(6)

    def __post_init__(self) -> None:
        check_whole("max_batch_size", self.max_batch_size)
        check_whole("max_tries", self.max_tries)
        self.concurrency = self.max_batch_size
        super().__post_init__()
        self.rate_limit = check_rate_limit(self.rate_limit)
        price_of(self.cost)
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError(f"timeout_s is a number of seconds above 0, not {self.timeout_s!r}")
        self.vouch()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process gets: of its secrets the names of their variables alone."""
        return {**super().__getstate__(), **dict.fromkeys(literal_secrets(self))}

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__setstate__({**self.__getstate__(), **literal_secrets(self)})
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = object.__new__(type(self))
        copied.__setstate__({**copy.deepcopy(self.__getstate__(), memo), **literal_secrets(self)})
        return copied

    def destination(self) -> Destination:
        """Where its keys go. Here the code of the class, for only that knows, with the fields that are its own."""
        cls: Any = type(self)
        return code_of(cls, {name: getattr(self, name) for name in _steering_fields(cls)})

    @cached_property
    def price(self) -> Price | None:
        """What a token costs; None where that is not known."""
        return price_of(self.cost) or self.usual_price()

    def usual_price(self) -> Price | None:
        """What a token costs where the user does not say."""
        return None

    def key(self) -> str | None:
        """The key itself; AccountRefused where the variable that holds it is not set."""
        return self.key_of(self.api_key)

    def resolved_key(self, default: str, *, is_required: bool) -> str | None:
        """The key itself, or what ``default`` (``"env:NAME"``) stands for; None where it is neither set nor needed, or
        not allowed to go there."""
        if self.api_key is not None:
            return self.key_of(self.api_key)
        name = default.removeprefix(SECRET_PREFIX)
        is_sent = name in os.environ and (self.granted is None or self.granted.allows(name, self.destination()))
        return self.key_of(default) if is_required or is_sent else None

    def key_of(self, secret: str | None) -> str | None:
        """What a secret stands for; AccountRefused, no row's fault, where its variable is unset or may not go there."""
        try:
            return resolved_secret(secret, self)
        except ConfigError as error:
            raise AccountRefused(str(error)) from error

    def held(self, value: Any) -> Any:
        """A value, however nested, with what the variables that it names hold; AccountRefused as `key_of`."""
        try:
            return with_secrets(value, self)
        except ConfigError as error:
            raise AccountRefused(str(error)) from error

    def hidden(self, error: E) -> E:
        """The error as it is told: without secrets in its message."""
        hide(error)
        return error

    def limit_s(self, parameters: Mapping[str, Any]) -> float:
        """How long one request with these parameters may take."""
        return self.timeout_s

    def provider(self) -> str:
        """Who limits these requests, by a name that all models of one provider share."""
        return "key" if self.api_key else f"model {self.identifier}"

    async def send(
        self, attempt: Callable[[], Awaitable[Answered[T]]], expected_cost: float, limit_s: float | None = None, *,
        parameters: Collection[str] = (), witness: Callable[[], Awaitable[Answered[Any]]] | None = None,
        is_divisible: bool = False, is_suspect: bool = False,
    ) -> T:  # fmt: skip
        """The value of an answer, under the account's limits, counted for the prediction and for the model.

        ``limit_s``: how long one request may take, by default ``timeout_s``. ``parameters``: the names of what is sent
        along; a prediction whose first rows are refused for one of them stops. For the others see `Call`. Runs on
        pinnacle's own loop, whichever loop asks: clients keep to the loop they began on.
        """
        key, provider = self.key(), self.provider()
        account = account_of(provider, key)
        if self.rate_limit is not None:
            account.declare(_with_margin(self.rate_limit), by=self.identifier)
        gate = gate_of(provider, key, self.identifier, self.max_batch_size)
        sender = Sender(
            self.identifier, account, gate, limit_s or self.timeout_s, self.max_tries, self.max_attempts
        )  # fmt: skip
        call = Call(attempt, expected_cost, parameters, witness, is_divisible, is_suspect)
        try:
            return await loop.on_own_loop(sender.send(call, self.counting()))
        except Exception as error:  # whatever it is, secrets are taken out of its text; raised again
            self.hidden(error)
            raise

    async def called(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a function of the user's returns: awaited where it is a coroutine function, in a thread where not."""
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        run = contextvars.copy_context().run
        call = partial(run, partial(function, *args, **kwargs))
        answer = await self.threads.run(call)
        return await answer if inspect.isawaitable(answer) else answer

    def _renew(self) -> None:
        """In a forked child, threads and a client of its own."""
        forks.leave_to_parent(*(vars(self).pop(name, None) for name in ("threads", "client")))

    @cached_property
    def threads(self) -> CallThreads:
        """Where the user's plain functions are called."""
        forks.renew_in_child(self._renew)
        return CallThreads()


@dataclasses.dataclass
class ByFunction(HostedModel):
    """A hosted model that a user's function calls: ``fn(model, ..., **keywords)``, async or not.

    ``setup_fn(api_key)`` is called once, and its result is ``model.client``; ``args`` is a dict of the user's own,
    however nested: where it says ``"env:NAME"``, the function finds what that variable holds.
    """

    _: dataclasses.KW_ONLY
    fn: Callable[..., Any]
    setup_fn: Callable[..., Any] | None = None
    args: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("fn", "setup_fn"):
            function = getattr(self, name)
            is_left_out = function is None and name == "setup_fn"
            if not is_left_out and (not callable(function) or isinstance(function, type)):
                raise ConfigError(f"model {self.identifier!r}: {name}= is a function, not {function!r}")
        if inspect.iscoroutinefunction(self.setup_fn):
            raise ConfigError(f"model {self.identifier!r}: setup_fn= is a plain function, and not a coroutine function")
        if (held := literal_in(self.args)) is not None:
            raise ConfigError(
                f"model {self.identifier!r}: args has {held!r}, which looks like a secret and would be stored with the "
                "model: put it into an environment variable and pass 'env:NAME' in its place"
            )
        super().__post_init__()

    def destination(self) -> Destination:
        """The function itself, with its ``args``: where it goes, only that knows."""
        given = {name: getattr(self, name, None) for name in STEERING}
        return code_of(self.fn, {"args": self.args, "setup_fn": self.setup_fn, **given})

    def secret_names(self) -> set[str]:
        return super().secret_names() | secret_names_in(self.args)

    def bound(self) -> Callable[..., Any]:
        """``fn`` for this model, whose client is made first, and in no thread of its own.

        Where ``args`` name secrets, the function gets a model that is the same but for what they hold.
        """
        self.client  # noqa: B018
        if not secret_names_in(self.args):
            return partial(self.fn, self)
        shown = object.__new__(type(self))
        vars(shown).update(vars(self), args=self.held(self.args))
        return partial(self.fn, shown)

    @cached_property
    def client(self) -> Any:
        """What ``setup_fn(api_key)`` returned; called once, at the first call. None without one."""
        with _setting_up:
            if "client" not in vars(self):
                forks.renew_in_child(self._renew)
                key = resolved_secret(self.api_key, self)
                vars(self)["client"] = None if self.setup_fn is None else self.setup_fn(key)
            return vars(self)["client"]


_setting_up = forks.rlock()


@lru_cache(maxsize=256)
def _steering_fields(cls: Any) -> tuple[str, ...]:
    """The fields that may decide where a class's code goes: those that are its own."""
    ours = [each for each in cls.__mro__ if each.__module__.partition(".")[0] == "pinnacle"]
    shared = {name for each in ours for name in getattr(each, "__dataclass_fields__", ())} - STEERING
    return tuple(field.name for field in content_fields(cls) if field.name not in shared)


def _with_margin(limit: RateLimit) -> RateLimit:
    """A limit that also holds where requests go out: between the limiter's yes and that some time passes, and not
    always the same."""
    count, seconds = limit
    return count, seconds + min(MARGIN_S, MARGIN_SHARE * seconds)
