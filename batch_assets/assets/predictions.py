"""The predictions of an hour."""

import dagster as dg

from batch_assets.database.batches import Batches
from batch_assets.database.hours import FailedItems
from batch_assets.failures import explained
from batch_assets.inference.scoring import Progress, score
from batch_assets.partitions import closed_hour, hours
from batch_assets.resources import Database, Model


@dg.asset(
    partitions_def=hours,
    ins={"raw_items": dg.AssetIn(metadata={"columns": ["id", "values"], "where": "prediction IS NULL"})},
    deps=["iris_model"],
    io_manager_key="mysql_io_manager",
    metadata={
        "table": "items",
        "partition_expr": "created_datetime",
        "key": "id",
        "update_columns": ["prediction"],
        "unchanged_columns": ["values"],
    },
    group_name="batch_inference",
    kinds={"onnx", "mysql"},
)
@explained()
def predictions(context: dg.AssetExecutionContext, raw_items: Batches, database: Database, model: Model) -> Batches:
    """The class probabilities of the hour's items, in `items.prediction`.

    Scores what has no prediction yet, batch by batch, so that a run which was interrupted is taken up where it
    stopped. An item that cannot be scored gets a row in `failed_items` with the reason, and its neighbours are
    scored; one that was corrected or deleted while it was being scored is left for the next run. A model that
    does not fit fails the run before anything is written.
    """
    hour, classifier, progress = closed_hour(context), model.load(), Progress()
    failed_items = FailedItems(database.engine(), hour, classifier.version, context.run.run_id)
    scored = score(raw_items, classifier, progress, sample_known=model.files().sample_data_path is not None)
    described = {"model_version": classifier.version, "retry": "partial"}
    return Batches(scored, in_transaction=failed_items.record, metadata=lambda: {**described, **progress.metadata()})
