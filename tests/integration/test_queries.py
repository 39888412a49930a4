"""Any select() over rows of one table: entities, columns, joins, subqueries, aliases, inheritance, reflection."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm, select

from pinnacle import UnknownField, UnsupportedQuery, UnsupportedTable, pinnacle
from tests.databases import new_postgres
from tests.models import CALLS, shout


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]


class Doc(Base):
    __tablename__ = "docs"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str] = orm.mapped_column("body")
    lang: orm.Mapped[str]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("authors.id"))
    author: orm.Mapped[Author] = orm.relationship(lazy="joined")


class Animal(Base):
    __tablename__ = "animals"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    kind: orm.Mapped[str]
    name: orm.Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Cat(Animal):
    __tablename__ = "cats"
    id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("animals.id"), primary_key=True)
    toy: orm.Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


def filled(handle):
    """The tables, six docs of two authors and three animals."""
    Base.metadata.create_all(handle.engine)
    with orm.Session(handle.engine) as session:
        session.add_all([Author(id=1, name="ann"), Author(id=2, name="bob")])
        session.flush()
        session.add_all(
            Doc(id=n, text=f"text {n}", lang="en" if n % 2 else "de", author_id=1 if n < 4 else 2) for n in range(1, 7)
        )
        session.add_all([Dog(id=1, name="rex"), Cat(id=2, name="tom", toy="ball"), Animal(id=3, name="owl")])
        session.commit()
    CALLS.clear()
    return handle


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def db(request):
    """A database of the test's own."""
    with pinnacle(request.getfixturevalue(request.param)) as handle:
        yield filled(handle)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(request, tmp_path_factory):
    """A database whose rows no test changes; each adds an output."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('queries')}/shared.db"
        else:
            url = stack.enter_context(new_postgres(request.getfixturevalue("postgres_server")))
        with pinnacle(url) as handle:
            yield filled(handle)


def predicted(db, query, X: Any = "text") -> list[int]:  # noqa: N803
    """The keys of the rows that a predict over ``query`` fills."""
    name = f"out{len(db.outputs())}"
    result = shout.predict(X=X, db=db, select=query, output=name)
    found = db.execute(sa.text(f"SELECT id, body, {name} AS out FROM docs ORDER BY id")).all()
    assert all(row.out in (None, row.body.upper()) for row in found)
    filled = [row.id for row in found if row.out is not None]
    assert (result.read, result.written) == (len(filled), len(filled))
    assert shout.predict(X=X, db=db, select=query, output=name).fresh == len(filled)
    return filled


docs = Doc.__table__
ALL, ENGLISH, ANNS = [1, 2, 3, 4, 5, 6], [1, 3, 5], [1, 2, 3]
of_ann = select(Author.id).where(Author.name == "ann")
other = orm.aliased(Doc)

QUERIES: dict[str, tuple[Any, list[int]]] = {
    "an entity": (select(Doc), ALL),
    "a table": (select(docs), ALL),
    "columns of an entity": (select(Doc.id, Doc.text), ALL),
    "one column that is not the key": (select(Doc.lang), ALL),
    "columns of a table": (select(docs.c.body), ALL),
    "a lightweight table": (select(sa.table("docs", sa.column("id"))), ALL),
    "a condition": (select(Doc).where(Doc.lang == "en"), ENGLISH),
    "several conditions": (select(Doc).where(Doc.lang == "en", Doc.id > 1).where(Doc.id < 5), [3]),
    "filter_by": (select(Doc).filter_by(lang="en"), ENGLISH),
    "a condition on nothing": (select(Doc).where(sa.false()), []),
    "IN": (select(Doc).where(Doc.id.in_([2, 3, 99])), [2, 3]),
    "LIKE with a percent sign": (select(Doc).where(Doc.text.like("%1")), [1]),
    "text()": (select(Doc).where(sa.text("lang = :lang")).params(lang="en"), ENGLISH),
    "a bound parameter": (select(Doc).where(Doc.lang == sa.bindparam("l", "en")), ENGLISH),
    "a subquery": (select(Doc).where(Doc.author_id.in_(of_ann)), ANNS),
    "a scalar subquery": (select(Doc).where(Doc.author_id == of_ann.scalar_subquery()), ANNS),
    "EXISTS": (
        select(Doc).where(select(Author).where(Author.id == Doc.author_id, Author.name == "ann").exists()),
        ANNS,
    ),
    "relationship has()": (select(Doc).where(Doc.author.has(name="ann")), ANNS),
    "a correlated subquery on itself": (
        select(Doc).where(Doc.id == select(sa.func.max(other.id)).where(other.lang == Doc.lang).scalar_subquery()),
        [5, 6],
    ),
    "a join": (select(Doc).join(Author).where(Author.name == "ann"), ANNS),
    "a join on": (select(docs).join(Author.__table__, docs.c.author_id == Author.id).where(Author.name == "ann"), ANNS),
    "an outer join": (
        select(Doc).outerjoin(Author, sa.and_(Author.id == Doc.author_id, Author.id == 1)).where(Author.id.is_(None)),
        [4, 5, 6],
    ),
    "an implicit join": (select(Doc).where(Doc.author_id == Author.id, Author.name == "ann"), ANNS),
    "select_from a join": (select(Doc).select_from(orm.join(Author, Doc)).where(Author.name == "ann"), ANNS),
    "a join with duplicates": (select(Doc).join(other, other.lang == Doc.lang).where(Doc.lang == "en"), ENGLISH),
    "a limit": (select(Doc).order_by(Doc.id.desc()).limit(2), [5, 6]),
    "a limit and an offset": (select(Doc).order_by(Doc.id).limit(2).offset(1), [2, 3]),
    "an order": (select(Doc).order_by(Doc.text.desc()), ALL),
    "an alias": (select(other).where(other.lang == "en"), ENGLISH),
    "an alias of a table": (select(docs.alias("d")), ALL),
    "an aliased self-join": (select(other).join(Doc, Doc.id == other.id + 1).where(Doc.lang == "de"), ENGLISH),
    "options": (select(Doc).options(orm.joinedload(Doc.author)), ALL),
    "a CTE in WHERE": (select(Doc).where(Doc.author_id.in_(select(of_ann.cte("anns").c.id))), ANNS),
    "a count over a window": (select(Doc.id, sa.func.count().over()), ALL),
    "a literal column beside": (select(Doc.id, sa.literal(1), sa.func.upper(Doc.text)), ALL),
    "execution options": (select(Doc).execution_options(yield_per=10), ALL),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_select_says_which_rows_are_filled(shared, name):
    query, rows = QUERIES[name]
    X = (  # noqa: N806
        "body"
        if name in ("a table", "columns of a table", "a lightweight table", "a join on", "an alias of a table")
        else "text"
    )
    assert predicted(shared, query, X) == rows


@pytest.mark.parametrize(
    "X", ["text", "body", Doc.text, docs.c.body], ids=["attribute name", "column name", "attribute", "column"]
)
def test_a_field_is_named_by_attribute_or_column(shared, X):  # noqa: N803
    assert predicted(shared, select(Doc), X) == ALL


def test_an_output_is_found_by_attribute_or_column(db):
    shout.predict(X=Doc.text, db=db, select=select(Doc))
    for X in ("text", "body", Doc.text):  # noqa: N806
        rows = db.execute(select(Doc.id, db.output(Doc, X, "shout")).order_by(Doc.id)).all()
        assert rows[0] == (1, "TEXT 1")
    assert db.execute(select(db.output(docs, "body", shout)).where(docs.c.id == 2)).scalar_one() == "TEXT 2"
    assert db.outputs()[0].name == "text__shout"


def test_an_output_can_be_filtered_and_sorted_by(db):
    shout.predict(X="text", db=db, select=select(Doc))
    column = db.output(Doc, "text", "shout")
    assert db.execute(select(Doc.id).where(column > "TEXT 4").order_by(column.desc())).scalars().all() == [6, 5]


def test_execute_returns_entities_and_commits_changes(db):
    assert [doc.author.name for doc in db.execute(select(Doc).order_by(Doc.id)).scalars()] == ["ann"] * 3 + ["bob"] * 3
    assert db.execute(sa.update(Doc).where(Doc.id == 1).values(text="new")).rowcount == 1
    assert db.execute(select(Doc.text).where(Doc.id == 1)).scalar_one() == "new"
    inserted = db.execute(sa.insert(Doc).returning(Doc.id), [{"id": 7, "text": "t", "lang": "en", "author_id": 1}])
    assert inserted.scalars().all() == [7]
    assert db.execute("SELECT count(*) FROM docs").scalar_one() == 7


def test_reflected_tables_work(db):
    reflected = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
    assert predicted(db, select(reflected).where(reflected.c.lang == "en"), "body") == ENGLISH


def test_a_stale_reflection_of_a_table_works(db):
    partial = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    assert predicted(db, select(partial).where(partial.c.id < 3), "body") == [1, 2]


def test_single_table_inheritance_fills_only_that_class(db):
    assert shout.predict(X="name", db=db, select=select(Dog)).written == 1
    assert CALLS == ["rex"]
    assert shout.predict(X="name", db=db, select=select(Animal)).written == 2


def test_joined_table_inheritance_fills_the_table_of_the_class(db):
    assert shout.predict(X="toy", db=db, select=select(Cat)).written == 1
    assert CALLS == ["ball"]
    assert db.execute(sa.text("SELECT toy__shout FROM cats")).scalars().all() == ["BALL"]


def test_a_field_of_the_parents_table_is_refused_for_the_childs(db):
    with pytest.raises(UnsupportedQuery, match="animals"):
        shout.predict(X="name", db=db, select=select(Cat))
    assert CALLS == []


@pytest.mark.parametrize(
    "query",
    [
        select(Doc, Author).join(Author),
        select(Doc.id, Author.name).join(Author),
        select(sa.func.count()),
        select(sa.func.count()).select_from(Doc),
        select(Doc.id, sa.func.max(Doc.id) + 1),
        select(sa.func.lower(sa.func.min(Doc.text))),
        select(Doc).distinct(),
        select(Doc.id).group_by(Doc.id),
        select(Doc.id).having(Doc.id > 1),
        select(sa.literal(1)),
        sa.text("SELECT 1"),
        sa.union(select(Doc.id), select(Doc.id)),
        sa.update(Doc).values(lang="x"),
        Doc,
        "docs",
    ],
    ids=str,
)
def test_what_is_not_rows_of_one_table_is_refused(shared, query):
    CALLS.clear()
    with pytest.raises(UnsupportedQuery):
        shout.predict(X="text", db=shared, select=query)
    assert CALLS == []


def test_rows_of_a_subquery_are_refused(db):
    with pytest.raises((UnsupportedTable, UnsupportedQuery)):
        shout.predict(X="text", db=db, select=select(select(Doc).subquery()))


def test_a_missing_table_is_refused_naming_one_that_is_near(db):
    with pytest.raises(UnsupportedTable, match="did you mean 'docs'"):
        shout.predict(X="body", db=db, select=select(sa.table("dcos", sa.column("id"))))


def test_a_view_is_refused(db):
    db.execute(sa.text("CREATE VIEW english AS SELECT * FROM docs"))
    with pytest.raises(UnsupportedTable, match="view"):
        shout.predict(X="body", db=db, select=select(sa.table("english", sa.column("id"))))


def test_an_unknown_attribute_offers_near_names(db):
    with pytest.raises(UnknownField) as caught:
        shout.predict(X="txet", db=db, select=select(Doc))
    assert "text" in caught.value.near


def test_a_path_into_a_column_that_is_not_json_is_refused(db):
    with pytest.raises(UnknownField, match="not JSON"):
        shout.predict(X="text.title", db=db, select=select(Doc))


def test_a_row_that_leaves_the_query_during_its_call_is_still_right(db):
    from pinnacle import model

    def leaving(text):
        if text == "text 1":
            db.execute(sa.update(Doc).where(Doc.id == 1).values(lang="de"))
        return text.upper()

    model(leaving, identifier="m", output_type=str).predict(
        X="text", db=db, select=QUERIES["a condition"][0], output="out"
    )
    found = dict(tuple(row) for row in db.execute(sa.text("SELECT id, out FROM docs")))
    assert found[1] in (None, "TEXT 1")
    assert (found[3], found[5]) == ("TEXT 3", "TEXT 5")
