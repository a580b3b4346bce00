"""What came true of items, as it is read beside their predictions."""

import pytest

from batch_assets.database.records.actuals import read_answers_and_actuals
from batch_assets.hours import hour_of_key
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import TABLES, engine_from_environment
from batch_assets_tests.support.pipeline import GOOD, HOUR, insert_items


@pytest.mark.parametrize("column", ["label", "value", "pipeline", "known_at"])
@pytest.mark.usefixtures("tables")
def test_a_column_of_predictions_may_be_called_as_one_of_ours(sql: Sql, column: str) -> None:
    keys = insert_items(sql, GOOD)
    sql(f"ALTER TABLE items ADD COLUMN {column} VARCHAR(20)")
    sql(f"UPDATE items SET prediction = '[1, 0, 0]', {column} = 'answer'")
    sql("INSERT INTO actuals (pipeline, item_id, label) VALUES ('items', %s, 'known')", keys[0])
    sql("INSERT INTO actuals (pipeline, item_id, label) VALUES ('other', %s, 'no matter')", keys[1])
    hour = hour_of_key(HOUR)
    assert hour
    rows = [
        tuple(row) for part in read_answers_and_actuals(engine_from_environment(), TABLES, column, hour) for row in part
    ]
    assert sorted(rows, key=str) == [("answer", "known", None), ("answer", None, None), ("answer", None, None)]
