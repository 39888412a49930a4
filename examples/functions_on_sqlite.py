"""Functions over a SQLite table: two columns, one bad row set aside, and what a second run does.

Run: python examples/functions_on_sqlite.py
"""

from __future__ import annotations

from sqlalchemy import create_engine, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pinnacle import model, pinnacle


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[str]
    quantity: Mapped[int]


@model(max_attempts=1)
def total(price: str, quantity: int) -> float:
    return float(price) * quantity


@model
def is_large(quantity: int) -> bool:
    return quantity >= 10


def main() -> None:
    engine = create_engine("sqlite:///orders.db")
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [("1.50", 10), ("ask us", 2), ("4.00", 3)]
        connection.execute(insert(Order), [{"price": price, "quantity": quantity} for price, quantity in rows])

    with pinnacle(engine) as db:
        result = total.predict(X=("price", "quantity"), db=db, select=select(Order), output="total")
        is_large.predict(X="quantity", db=db, select=select(Order), output="is_large")
        print(f"{result.written} written, {result.failed} set aside")
        for error in db.errors():
            print(f"order {error.key}: {error.error}: {error.message}")

        with engine.begin() as connection:
            connection.execute(update(Order).where(Order.id == 2).values(price="2.25"))
        again = total.predict(X=("price", "quantity"), db=db, select=select(Order), output="total")
        print(f"after the repair: {again.computed} computed, {again.fresh} already fresh")

        totals, large = db.output(Order, ("price", "quantity"), "total"), db.output(Order, "quantity", "is_large")
        for row in db.execute(select(Order.id, totals, large).order_by(Order.id)):
            print(*row)


if __name__ == "__main__":
    main()

# Prints:
# 2 written, 1 set aside
# order 2: ValueError: could not convert string to float: 'ask us'
# after the repair: 1 computed, 2 already fresh
# 1 15.0 True
# 2 4.5 False
# 3 12.0 False
