"""The tables: `items`, which is the contract with the web service, and our own.

Times are UTC without an offset. JSON columns are read and written as their text.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batch_assets.database.connection.json_lists import JSONList
from batch_assets.database.connection.sqlite_time import SQLiteTime
from batch_assets.pipeline import Declaration, ItemTable, Pipeline

JSON_TEXT = sa.Text()
# SQLite numbers rows by itself for INTEGER only, and compares times as text: all must be of one length.
IDENTIFIER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(SQLiteTime(), "sqlite")  # type: ignore[no-untyped-call]
TIMESTAMP = sa.TIMESTAMP().with_variant(SQLiteTime(), "sqlite")  # type: ignore[no-untyped-call]
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
LONG_CODE = sa.String(64)

metadata = sa.MetaData()


@cache
def item_table(names: ItemTable) -> sa.Table:
    """Returns the table of the web service, its columns under the keys of the contract whatever their names are.

    Args:
        names: The names of the table and its columns.
    """
    return sa.Table(
        names.name,
        sa.MetaData(),
        sa.Column(names.key, IDENTIFIER, key="id", primary_key=True, autoincrement=True, doc="Numbers the items."),
        *_values(names),
        sa.Column(
            names.prediction,
            JSON_TEXT,
            key="prediction",
            nullable=True,
            doc="Class probabilities in label order, for example `[0.97, 0.02, 0.01]`. `NULL` until scored.",
        ),
        sa.Column(
            names.created,
            TIMESTAMP,
            key="created_datetime",
            nullable=False,
            doc="Decides the hour that the item belongs to.",
        ),
        *_updated(names),
        info={
            "doc": "What the service writes and the batch scores. Adopted as it is where it exists already.",
            "names": names,
        },
    )


def feature_key(name: str) -> str:
    """Returns under which key a feature's column is in its table: it may be called as one of the contract is."""
    return f"feature {name}"


def _values(names: ItemTable) -> list[sa.Column[Any]]:
    if names.from_columns:
        columns: list[sa.Column[Any]] = [sa.Column(each.name, key=feature_key(each.name)) for each in names.features]
        return [*columns, JSONList(names.values, columns, key="values")]
    example = "What to score, for example `[5.1, 3.5, 1.4, 0.2]`."
    return [sa.Column(names.values, JSON_TEXT, key="values", nullable=False, doc=example)]


def _updated(names: ItemTable) -> list[sa.Column[Any]]:
    if names.updated is None:
        return []
    doc = "Set by the server on every update."
    return [sa.Column(names.updated, TIMESTAMP, key="updated_datetime", nullable=False, doc=doc)]


@dataclass(frozen=True)
class PipelineTables:
    """What a pipeline has in its database: the table of its items, and its rows in the tables that pipelines share.

    Args:
        pipeline: The name of the pipeline.
        items: The table of its items.
    """

    pipeline: str
    items: sa.Table

    def has(self, shared: sa.Table) -> sa.ColumnElement[bool]:
        """Returns the condition that a row of a shared table is one of the pipeline's."""
        return shared.c.pipeline == self.pipeline

    @property
    def items_with_failures(self) -> sa.Join:
        """The failed items, joined with what the service has of them."""
        return failed_items.join(self.items, sa.and_(self.items.c.id == failed_items.c.item_id, self.has(failed_items)))


def pipeline_tables(pipeline: Pipeline | Declaration) -> PipelineTables:
    """Returns the tables of a pipeline."""
    return PipelineTables(pipeline.name, item_table(pipeline.items))


def _pipeline_column() -> sa.Column[str]:
    return sa.Column("pipeline", LONG_CODE, primary_key=True, doc="The pipeline; `items` is that of the environment.")


failed_items = sa.Table(
    "failed_items",
    metadata,
    _pipeline_column(),
    sa.Column("item_id", IDENTIFIER, primary_key=True, autoincrement=False, doc="The item."),
    sa.Column("hour", TIME, nullable=False, doc="The hour that it belongs to."),
    sa.Column("code", LONG_CODE, nullable=False, doc="The kind of fault, for example `wrong_length`."),
    sa.Column("message", sa.Text, nullable=False, doc="What is wrong, in a sentence."),
    sa.Column("attempts", sa.Integer, nullable=False, doc="How often the item has failed with the same values."),
    sa.Column("first_failed_at", TIME, nullable=False, doc="When it failed first."),
    sa.Column("last_failed_at", TIME, nullable=False, doc="When it failed last."),
    sa.Column("model_version", LONG_CODE, nullable=False, doc="SHA-256 of the model that it failed with last."),
    sa.Column("run_id", LONG_CODE, nullable=False, doc="The run in which it failed last."),
    sa.Column(
        "values_checksum",
        sa.BigInteger,
        nullable=False,
        doc="CRC-32 of the values that failed: with other values the item is tried again from the start.",
    ),
    info={"doc": "Why an item has no prediction. A row exists only while its item has none."},
)

hour_locks = sa.Table(
    "hour_locks",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("run_id", LONG_CODE, nullable=False, doc="The run that has taken the lock last."),
    sa.Column("taken_at", TIME, nullable=False, doc="When it took it."),
    info={"doc": "Which run wrote an hour last. The lock itself is held by the run's connection and ends with it."},
)

hour_requests = sa.Table(
    "hour_requests",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("requests", sa.Integer, nullable=False, doc="How often it has been requested in a row without progress."),
    sa.Column("reason", LONG_CODE, nullable=False, doc="Why it was requested last, for example `late items`."),
    sa.Column("left_over", LONG_CODE, nullable=False, doc="What was left of the hour then, by which progress is told."),
    sa.Column("requested_at", TIME, nullable=False, doc="When it was requested last."),
    sa.Column("given_up_at", TIME, doc="Since when the sensor no longer requests it. `NULL` while it does."),
    sa.Column("given_up_because", sa.Text, doc="Why the sensor has given it up, in a sentence."),
    info={"doc": "What the sensor has requested, one row for each hour that is not done."},
)

run_summary = sa.Table(
    "run_summary",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("items", sa.BigInteger, nullable=False, doc="Items of the hour: `predicted + failed + pending`."),
    sa.Column("predicted", sa.BigInteger, nullable=False, doc="Items with a prediction."),
    sa.Column("failed", sa.BigInteger, nullable=False, doc="Items that cannot be scored."),
    sa.Column("pending", sa.BigInteger, nullable=False, doc="Items with neither a prediction nor a reason why not."),
    sa.Column(
        "label_counts",
        JSON_TEXT,
        nullable=False,
        doc='How many items have each label as the most probable one, for example `{"setosa": 41}`.',
    ),
    sa.Column("model_version", LONG_CODE, doc="SHA-256 of the model that scored items of the hour last."),
    sa.Column("retry", sa.String(16), doc="Retry mode of that run: `partial` or `whole_batch`."),
    sa.Column("run_id", LONG_CODE, nullable=False, doc="That run."),
    sa.Column("started_at", TIME, doc="When it began to score the hour."),
    sa.Column("finished_at", TIME, nullable=False, doc="When it was done with the hour."),
    sa.Column("scored", sa.BigInteger, doc="Items that it gave a prediction."),
    sa.Column("rows_per_second", sa.Double, doc="`scored` divided by the seconds that the hour took."),
    sa.Column("read_rows_per_second", sa.Double, doc="`scored` divided by the seconds that reading took."),
    sa.Column("check_rows_per_second", sa.Double, doc="`scored` divided by the seconds that checking took."),
    sa.Column("score_rows_per_second", sa.Double, doc="`scored` divided by the seconds that the model took."),
    sa.Column("write_rows_per_second", sa.Double, doc="`scored` divided by the seconds that writing took."),
    sa.Column(
        "ignored_keys",
        sa.BigInteger,
        nullable=False,
        server_default="0",
        doc="How many keys of the `scored` items name no feature; 0 where an earlier version has summed up.",
    ),
    sa.Column(
        "predicted_by_other_models",
        sa.BigInteger,
        nullable=False,
        server_default="0",
        doc="Items whose prediction stems from another model than `model_version`, see `item_models`.",
    ),
    info={"doc": "One row for each hour that was scored: its items by outcome and by label, and how they were scored."},
)

registrations = sa.Table(
    "registrations",
    metadata,
    _pipeline_column(),
    # SHA-256, in hexadecimal: of a key in any letters and of any length.
    sa.Column("idempotency_key", LONG_CODE, primary_key=True, doc="SHA-256 of the key."),
    sa.Column("fingerprint", LONG_CODE, nullable=False, doc="SHA-256 of the items that were registered under it."),
    sa.Column("ids", LONG_TEXT, nullable=False, doc="Their ids, which a repeated request gets as its answer."),
    sa.Column("registered_at", TIME, nullable=False, doc="When they were registered."),
    info={"doc": "Idempotency keys of the web API."},
)

baselines = sa.Table(
    "baselines",
    metadata,
    _pipeline_column(),
    sa.Column("model_version", LONG_CODE, primary_key=True, doc="SHA-256 of the model that it is for."),
    sa.Column("made_at", TIME, nullable=False, doc="When it was made."),
    sa.Column("made_from", sa.Text, nullable=False, doc="Of what, in words: hours, or a file."),
    sa.Column("items", sa.BigInteger, nullable=False, doc="How many items were looked at."),
    sa.Column(
        "sketches",
        LONG_TEXT,
        nullable=False,
        doc="By feature: 100 quantiles of numbers, or the counts of the most common texts. No item is kept.",
    ),
    info={"doc": "What the features and the answers are to look like, made by `batch-assets baseline`."},
)

hour_profiles = sa.Table(
    "hour_profiles",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("model_version", LONG_CODE, nullable=False, doc="SHA-256 of the model that scored the hour last."),
    sa.Column("baseline_made_at", TIME, doc="Which baseline it was measured from. `NULL` if there was none."),
    sa.Column("sampled", sa.BigInteger, nullable=False, doc="How many of its items were looked at."),
    sa.Column("alarms", sa.Integer, nullable=False, doc="How many features, answers and labels are an alarm."),
    sa.Column("judgements", LONG_TEXT, nullable=False, doc="The judgement of each, with its test and its sizes."),
    sa.Column("measures", LONG_TEXT, nullable=False, doc="The sizes by which later hours are judged."),
    sa.Column("label_counts", JSON_TEXT, nullable=False, doc="Its answers by label."),
    sa.Column("sketches", LONG_TEXT, nullable=False, doc="As in `baselines`, of this hour."),
    info={"doc": "What the items and the answers of each hour looked like, and how they were judged."},
)

incidents = sa.Table(
    "incidents",
    metadata,
    _pipeline_column(),
    sa.Column("number", IDENTIFIER, primary_key=True, autoincrement=False, doc="Numbers those of a pipeline."),
    sa.Column(
        "kind",
        LONG_CODE,
        nullable=False,
        doc="`hour failed`, `check failed`, `drift`, `volume`, `deadline missed` or `canary failed`.",
    ),
    sa.Column("subject", sa.Text, nullable=False, doc="Of what: an hour, a check of an hour, a feature, a label."),
    sa.Column("hour", TIME, nullable=False, doc="The hour in which it was found."),
    sa.Column("cause", sa.Text, nullable=False, doc="Why, in a sentence."),
    sa.Column("opened_at", TIME, nullable=False, doc="When it was found."),
    sa.Column("notified_at", TIME, doc="When every receiver had the message. `NULL` until then."),
    sa.Column("over_at", TIME, doc="When it was found to be over. `NULL` while it is not."),
    sa.Column("over_notified_at", TIME, doc="When every receiver had the message of that."),
    sa.Column(
        "received_by",
        sa.Text,
        nullable=False,
        doc="Which receivers have had the message that others are yet to get, by their place in BATCH_ALERT_URLS.",
    ),
    info={"doc": "What the alerts have told, one row for each incident."},
)

hour_models = sa.Table(
    "hour_models",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("model_version", LONG_CODE, nullable=False, doc="SHA-256 of the model."),
    info={"doc": "Which model made the predictions of an hour, but for those that `item_models` names."},
)

item_models = sa.Table(
    "item_models",
    metadata,
    _pipeline_column(),
    sa.Column("item_id", IDENTIFIER, primary_key=True, autoincrement=False, doc="The item."),
    sa.Column("hour", TIME, nullable=False, doc="Its hour."),
    sa.Column("model_version", LONG_CODE, nullable=False, doc="SHA-256 of the model."),
    sa.Index("ix_item_models_hour", "pipeline", "hour"),
    info={"doc": "Which model made the prediction of an item, where its hour has seen a second one."},
)

actuals = sa.Table(
    "actuals",
    metadata,
    _pipeline_column(),
    sa.Column("item_id", IDENTIFIER, primary_key=True, autoincrement=False, doc="The item."),
    sa.Column("label", sa.Text, doc="What came true, where the model answers with labels."),
    sa.Column("value", sa.Double, doc="What came true, where the model answers with a number."),
    sa.Column("known_at", TIME, nullable=False, doc="Since when it is known, in UTC. Later ones are looked at anew."),
    info={"doc": "What came true of items. Your service may write it too."},
)

hour_quality = sa.Table(
    "hour_quality",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("model_version", LONG_CODE, doc="SHA-256 of the model that scored the hour last."),
    sa.Column("measured_at", TIME, nullable=False, doc="When it was measured."),
    sa.Column("predicted", sa.BigInteger, nullable=False, doc="Items with a prediction."),
    sa.Column("known", sa.BigInteger, nullable=False, doc="Those of which it is known what came true."),
    sa.Column("coverage", sa.Double, doc="`known` divided by `predicted`."),
    sa.Column("accuracy", sa.Double, doc="The share of the known labels that were right."),
    sa.Column("mean_absolute_error", sa.Double, doc="Of the known numbers."),
    sa.Column("brier_score", sa.Double, doc="Of the known labels of predictions that are probabilities: 0 to 2."),
    sa.Column("expected_accuracy", sa.Double, doc="Estimated from the probabilities, if they are calibrated."),
    sa.Column("calibration", sa.Text, nullable=False, doc="Ten bins: items, mean confidence and accuracy, as JSON."),
    info={"doc": "How right the predictions of each hour were, as far as it is known what came true."},
)

promotions = sa.Table(
    "promotions",
    metadata,
    _pipeline_column(),
    sa.Column("number", IDENTIFIER, primary_key=True, autoincrement=False, doc="Numbers those of a pipeline from 1."),
    sa.Column("action", LONG_CODE, nullable=False, doc="`promote` or `rollback`."),
    sa.Column("made_at", TIME, nullable=False, doc="When, in UTC."),
    sa.Column("made_by", sa.Text, nullable=False, doc="By which account of which machine, as that says."),
    sa.Column("database_account", sa.Text, doc="By which account of the server, from where. `NULL` on SQLite."),
    sa.Column(
        "declared",
        sa.Text,
        nullable=False,
        doc="The model that the pipeline declared then. While it declares that, the newest row applies.",
    ),
    sa.Column(
        "model", sa.Text, nullable=False, doc="The model in force from then on: a file, or `models:/NAME/VERSION`."
    ),
    sa.Column("label_filepath", sa.Text, doc="Its labels. `NULL` if it names its classes itself, or has none."),
    sa.Column("version", LONG_CODE, nullable=False, doc="Its SHA-256."),
    sa.Column("model_before", sa.Text, nullable=False, doc="The model in force until then."),
    sa.Column("label_filepath_before", sa.Text, doc="Its labels."),
    sa.Column("version_before", LONG_CODE, doc="Its SHA-256. `NULL` if it could not be told, as of an alias."),
    sa.Column("takes_back", sa.BigInteger, doc="Which promotion a rollback has taken back, by its `number`."),
    info={"doc": "Which models were put in force, and by whom. A row is never changed or deleted."},
)

challenger_predictions = sa.Table(
    "challenger_predictions",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("item_id", IDENTIFIER, primary_key=True, autoincrement=False, doc="An item of its sample."),
    sa.Column("model_version", LONG_CODE, nullable=False, doc="SHA-256 of the challenger."),
    sa.Column("answer", LONG_TEXT, doc="What it answers, as JSON. `NULL` if it cannot."),
    sa.Column("code", LONG_CODE, doc="Why it cannot, for example `wrong_length`. `NULL` if it can."),
    info={"doc": "What a challenger answers to a sample of each hour. Nothing of it is published."},
)

challenger_hours = sa.Table(
    "challenger_hours",
    metadata,
    _pipeline_column(),
    sa.Column("hour", TIME, primary_key=True, doc="The hour."),
    sa.Column("model_version", LONG_CODE, nullable=False, doc="SHA-256 of the model that scored the hour last."),
    sa.Column("challenger_version", LONG_CODE, nullable=False, doc="SHA-256 of the challenger."),
    sa.Column("challenger", sa.Text, nullable=False, doc="Its name: of its file, or its version in a registry."),
    sa.Column("compared_at", TIME, nullable=False, doc="When the two were compared."),
    sa.Column("sampled", sa.BigInteger, nullable=False, doc="Predicted items of the hour that were looked at."),
    sa.Column("failed", sa.BigInteger, nullable=False, doc="Those that the challenger cannot answer."),
    sa.Column("compared", sa.BigInteger, nullable=False, doc="Those whose two answers were compared."),
    sa.Column(
        "agreed", sa.BigInteger, doc="Those to which both give the same label. `NULL` where there are no labels."
    ),
    sa.Column(
        "label_counts",
        LONG_TEXT,
        nullable=False,
        doc="By label: how many have it from the model, from the challenger and from both, as JSON.",
    ),
    sa.Column("mean_absolute_difference", sa.Double, doc="Between the two answers, where these are numbers."),
    sa.Column("correlation", sa.Double, doc="Of the two answers, where these are numbers that vary."),
    sa.Column("psi", sa.Double, doc="How far the answers have shifted: the population stability index."),
    sa.Column("labels", LONG_TEXT, nullable=False, doc="The labels of the model in the order of its probabilities."),
    sa.Column("challenger_labels", LONG_TEXT, nullable=False, doc="Those of the challenger."),
    sa.Column("measured_at", TIME, nullable=False, doc="When it was looked at last what is known of these items."),
    sa.Column("known", sa.BigInteger, nullable=False, doc="Compared items of which it is known what came true."),
    sa.Column("accuracy", sa.Double, doc="The share of them whose label the model had right."),
    sa.Column("challenger_accuracy", sa.Double, doc="The share of them whose label the challenger had right."),
    sa.Column("mean_absolute_error", sa.Double, doc="Of the model's numbers for them."),
    sa.Column("challenger_mean_absolute_error", sa.Double, doc="Of the challenger's numbers for them."),
    sa.Column("brier_score", sa.Double, doc="Of the model's probabilities for them: 0 to 2."),
    sa.Column("challenger_brier_score", sa.Double, doc="Of the challenger's probabilities for them."),
    info={"doc": "How a challenger compares with the model that scored the hour: one row for each hour compared."},
)
