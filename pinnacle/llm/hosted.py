"""What all models behind an interface share: the account, the limits, the price, and how one request is sent."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, ClassVar, TypeVar

from pinnacle.base import loop
from pinnacle.base.errors import AccountRefused, ConfigError
from pinnacle.base.metering import Meter, Usage, meter
from pinnacle.components.component import SECRET_PREFIX, operational, resolved_secret, secret
from pinnacle.components.model import Model
from pinnacle.llm.limiter import RateLimit, account_of, check_rate_limit, gate_of
from pinnacle.llm.prices import Price, price_of
from pinnacle.llm.redaction import hide
from pinnacle.llm.sending import Answered, Sender

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

MARGIN_S, MARGIN_SHARE = 0.005, 0.005


@dataclasses.dataclass
class HostedModel(Model):
    """A model behind an interface, under limits and at a price.

    ``max_batch_size``: requests in flight, exactly, in this process. ``rate_limit``: (n, seconds), at most n
    starts in any so many seconds, together with all models that share the provider and key; without one the
    pace is learned from answers. ``cost``: US dollars a token, (input, output) or one number for input.
    ``timeout_s``: for one request. ``max_tries``: requests for one answer that met none before it counts as an
    outage. ``api_key``: ``"env:NAME"``, or the key itself, which is then never stored.
    """

    is_paid: ClassVar[bool] = True

    _unshared: ClassVar[tuple[str, ...]] = ("spent", "prompting", "threads", "client", "price")
    """What stays behind when a model is copied to another process."""

    identifier: str = ""
    _: dataclasses.KW_ONLY
    api_key: str | None = secret()
    max_batch_size: int = operational(64)
    rate_limit: Any = operational(None)
    cost: Any = operational(None)
    timeout_s: float = operational(120.0)
    max_tries: int = operational(6)

    def __post_init__(self) -> None:
        if not self.identifier:
            self.identifier = default_identifier(self)
        check_whole("max_batch_size", self.max_batch_size)
        check_whole("max_tries", self.max_tries)
        self.concurrency = self.max_batch_size
        super().__post_init__()
        self.rate_limit = check_rate_limit(self.rate_limit)
        price_of(self.cost)
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError(f"timeout_s is a number of seconds above 0, not {self.timeout_s!r}")
        self.spent = Meter()

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
        """The key itself, or what ``default`` (``"env:NAME"``) stands for; None where it is neither set nor needed."""
        if self.api_key is not None:
            return self.key_of(self.api_key)
        name = default.removeprefix(SECRET_PREFIX)
        return self.key_of(default) if is_required or name in os.environ else None

    def key_of(self, secret: str | None) -> str | None:
        """What a secret stands for; AccountRefused where the variable that holds it is not set: no row's fault."""
        try:
            return resolved_secret(secret, f"model {self.identifier!r}")
        except ConfigError as error:
            raise AccountRefused(str(error)) from error

    def hidden(self, error: E) -> E:
        """The error, without this model's key in its message."""
        hide(error, self.key())
        return error

    def provider(self) -> str:
        """Who limits these requests, by a name that all models of one provider share."""
        return "key" if self.api_key else f"model {self.identifier}"

    async def send(self, attempt: Callable[[], Awaitable[Answered[T]]], expected_cost: float) -> T:
        """The value of an answer, under the account's limits, counted for the run and for the model.

        Runs on pinnacle's own loop, whichever loop asks: clients keep to the loop they began on.
        """
        key, provider = self.key(), self.provider()
        account = account_of(provider, key)
        if self.rate_limit is not None:
            account.declare(_with_margin(self.rate_limit), by=self.identifier)
        gate = gate_of(provider, key, self.identifier, self.max_batch_size)
        sender = Sender(self.identifier, account, gate, self.timeout_s, self.max_tries)
        try:
            return await loop.on_own_loop(sender.send(attempt, Meters(meter.get(), self.spent), expected_cost))
        except Exception as error:
            hide(error, key)
            raise

    async def called(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a function of the user's returns: awaited where it is a coroutine function, in a thread where not."""
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        run = contextvars.copy_context().run
        call = partial(run, partial(function, *args, **kwargs))
        answer = await asyncio.get_running_loop().run_in_executor(self.threads, call)
        return await answer if inspect.isawaitable(answer) else answer

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        """One thread for each request that may be in flight."""
        return ThreadPoolExecutor(self.max_batch_size, thread_name_prefix="pinnacle-llm")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._unshared}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self.spent = Meter()


class Meters:
    """Counts for a run and for the model itself; the run's budget holds."""

    def __init__(self, run: Meter | None, own: Meter) -> None:
        self._run, self._own = run, own

    def reserve(self, expected: float) -> float | None:
        return self._run.reserve(expected) if self._run is not None else 0.0

    def settle(self, reserved: float, usage: Usage) -> None:
        self._own.settle(0.0, usage)
        if self._run is not None:
            self._run.settle(reserved, usage)


class ByFunction:
    """What a function-made model keeps between calls: ``client``, made once by ``setup_fn``."""

    identifier: str
    fn: Callable[..., Any]
    setup_fn: Callable[..., Any] | None
    api_key: str | None

    @cached_property
    def client(self) -> Any:
        """What ``setup_fn(api_key)`` returned; called once, at the first call. None without one."""
        with _setting_up:
            if "client" not in vars(self):
                key = resolved_secret(self.api_key, f"model {self.identifier!r}")
                vars(self)["client"] = None if self.setup_fn is None else self.setup_fn(key)
            return vars(self)["client"]

    def check_functions(self) -> None:
        """ConfigError for what cannot be called."""
        for name in ("fn", "setup_fn"):
            function = getattr(self, name)
            is_left_out = function is None and name == "setup_fn"
            if not is_left_out and (not callable(function) or isinstance(function, type)):
                raise ConfigError(f"model {self.identifier!r}: {name}= is a function, not {function!r}")
        if inspect.iscoroutinefunction(self.setup_fn):
            raise ConfigError(f"model {self.identifier!r}: setup_fn= is a plain function, and not a coroutine function")


_setting_up = threading.RLock()


def _with_margin(limit: RateLimit) -> RateLimit:
    """A limit that also holds where requests go out: between the limiter's yes and that some time passes, and not
    always the same."""
    count, seconds = limit
    return count, seconds + min(MARGIN_S, MARGIN_SHARE * seconds)


def default_identifier(model: Any) -> str:
    """The name to go by where none is given: the model's, with ``/`` replaced."""
    name = getattr(model, "model_name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{type(model).__name__} needs an identifier to go by")
    return name.replace("/", "-")


def check_whole(name: str, value: Any) -> None:
    """ConfigError for what is no whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is a whole number from 1, not {value!r}")
