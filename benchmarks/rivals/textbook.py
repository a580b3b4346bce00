"""The textbook: mapped objects, a model call for each row and a commit for each row."""

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.rivals.shared import Scorer, engine, report


class Base(DeclarativeBase):
    """The mapped classes."""


class Item(Base):
    """An item, as an example would map it."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    values: Mapped[Any] = mapped_column(sa.JSON)
    prediction: Mapped[Any] = mapped_column(sa.JSON(none_as_null=True))


def main() -> None:
    """Measures and tells."""
    start = time.perf_counter()
    scorer = Scorer()
    with Session(engine()) as session:
        for item in session.scalars(sa.select(Item).where(Item.prediction.is_(sa.null()))).all():
            item.prediction = scorer.probabilities([item.values])[0].tolist()
            session.commit()
    report(seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main()
