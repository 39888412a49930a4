"""Whatever select is put together of what may be stored, the one that comes back chooses the same rows."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinnacle import Settings
from pinnacle.backends.open import open_backend
from pinnacle.base.rows import Fields
from pinnacle.catalog.bodies import Hooks, Readers, decode, encode
from tests.databases import new_postgres

T = sa.Table(
    "kept", sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text),
    sa.Column("n", sa.Integer),
    sa.Column("Odd: name", sa.Numeric(10, 2)),
    sa.Column("day", sa.Date),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("yes", sa.Boolean),
    sa.Column("mood", sa.Enum("sad", "happy %", name="mood")),
    sa.Column("j", sa.JSON),
)  # fmt: skip
C, OTHER = T.c, T.alias("other")
ROWS = [
    {
        "id": i, "body": body, "n": n, "Odd: name": Decimal(i) / 4, "day": date(2026, 1, i),
        "at": datetime(2026, 1, i, tzinfo=UTC), "yes": i % 2 == 0, "mood": "sad" if i % 3 else "happy %",
        "j": {"a": {"b": i}, "c": [body]},
    }
    for i, (body, n) in enumerate([("aa", 1), ("50% :off", 2), ("it's", None), (None, -3), ("A_b\\", 0), ("", 7)], 1)
]  # fmt: skip

texts = st.sampled_from(["aa", "50% :off", "it's", "A_b\\", "", "%", ":x", "é", '"', "--", "a\nb"])
numbers = st.integers(-4, 8)
days = st.dates(date(2025, 12, 30), date(2026, 1, 8))

NUMBERS = st.recursive(
    st.sampled_from([C.id, C.n, sa.func.length(C.body), sa.func.coalesce(C.n, 0)]),
    lambda some: st.one_of(
        st.builds(lambda a, b: a + b, some, numbers),
        st.builds(lambda a, b: a - b, some, some),
        st.builds(lambda a, b: a * b, some, numbers),
        st.builds(lambda a: -a, some),
        st.builds(lambda a: sa.func.abs(a), some),
        st.builds(lambda a, b: sa.case((a > b, a), else_=b), some, numbers),
    ),
    max_leaves=4,
)
TEXTS = st.one_of(
    st.just(C.body),
    st.builds(lambda a: sa.func.upper(C.body) + a, texts),
    st.builds(lambda a, b: sa.func.replace(C.body, a, b), texts, texts),
    st.just(sa.cast(C.n, sa.String)),
    st.just(C.j["c"][0].as_string()),
)
ATOMS = st.one_of(
    st.builds(lambda a, b: a == b, NUMBERS, numbers),
    st.builds(lambda a, b: a > b, NUMBERS, NUMBERS),
    st.builds(lambda a, b, c: a.between(b, c), NUMBERS, numbers, numbers),
    st.builds(lambda a, b: a.in_(b), NUMBERS, st.lists(numbers, max_size=3)),
    st.builds(lambda a, b: a.not_in(b), NUMBERS, st.lists(numbers, max_size=3)),
    st.builds(lambda a: a.is_(None), TEXTS),
    st.builds(lambda a, b: a.is_distinct_from(b), NUMBERS, numbers),
    st.builds(lambda a, b: a <= b, TEXTS, texts),
    st.builds(lambda a, b: a.contains(b, autoescape=True), TEXTS, texts),
    st.builds(lambda a, b: a.startswith(b, autoescape=True), TEXTS, texts),
    st.builds(lambda a, b: a.ilike(f"%{b}", escape="/"), TEXTS, st.sampled_from(["A", ":off", "'s"])),
    st.builds(lambda a: C.body.in_(a), st.lists(texts, max_size=3)),
    st.builds(lambda a: C["Odd: name"] > a, st.decimals(0, 2, places=2)),
    st.builds(lambda a: C.day >= a, days),
    st.builds(lambda a: C.day.in_(a), st.lists(days, max_size=2)),
    st.builds(lambda a: C["at"] < datetime(a.year, a.month, a.day, tzinfo=UTC), days),
    st.just(C.yes),
    st.sampled_from([C.mood == "happy %", C.mood.in_(["sad"]), sa.extract("day", C.day) == 2]),
    st.builds(lambda a: C.j["a"]["b"].as_integer() == a, numbers),
    st.builds(lambda a: C.j[("a", "b")].as_integer() < a, numbers),
    st.builds(lambda a: sa.tuple_(C.id, C.n).in_(a), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=2)),
    st.builds(lambda a: C.id.in_(sa.select(OTHER.c.id).where(OTHER.c.n > a)), numbers),
    st.builds(lambda a: sa.exists().where(OTHER.c.n == C.id, OTHER.c.id > a), numbers),
    st.builds(lambda a: C.id == sa.select(sa.func.max(OTHER.c.id)).where(OTHER.c.n < a).scalar_subquery(), numbers),
    st.sampled_from([sa.true(), sa.false()]),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda some: st.one_of(
        st.lists(some, min_size=2, max_size=3).map(lambda all_of: sa.and_(*all_of)),
        st.lists(some, min_size=2, max_size=3).map(lambda any_of: sa.or_(*any_of)),
        some.map(sa.not_),
    ),
    max_leaves=5,
)


@contextmanager
def filled(url):
    """The rows, and the database as pinnacle reads it."""
    with closing(open_backend(url, Settings.from_environment())) as below:
        T.create(below.engine)
        with below.engine.begin() as connection:
            connection.execute(sa.insert(T), ROWS)
        yield below


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def below(request, tmp_path_factory):
    if request.param == "sqlite":
        with filled(f"sqlite:///{tmp_path_factory.mktemp('kept')}/kept.db") as found:
            yield found
    else:
        with new_postgres(request.getfixturevalue("postgres_server")) as url, filled(url) as found:
            yield found


def at_rest(stored):
    """What is stored, as the catalog writes and reads it."""
    return decode(json.loads(json.dumps(encode(stored, Hooks(*[None] * 5), "select"))), Readers(*[None] * 5))


def keys(connection, query):
    return sorted(connection.execute(query).scalars())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(condition=CONDITIONS | st.sampled_from([sa.text("n > 0 OR id = 3"), sa.text("body LIKE '%\\:%'")]))
def test_a_stored_select_chooses_the_same_rows(below, condition):
    fields = Fields.of("body")
    given_source = below.resolve(sa.select(T).where(condition), fields)
    back = below.resolve(at_rest(below.freeze(given_source)), fields)
    with below.engine.connect() as connection:
        meant = keys(connection, sa.select(C.id).where(condition))
        assert keys(connection, back.select(*back.key)) == meant
        for source in (given_source, back):
            assert keys(connection, source.select(*source.key).where(source.key[0] > 2)) == [k for k in meant if k > 2]
    assert below.freeze(given_source) == below.freeze(given_source)
