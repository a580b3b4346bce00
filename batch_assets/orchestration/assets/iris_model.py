"""The model that comes with the project."""

import dagster as dg

from batch_assets.orchestration.failures import as_dagster_failure
from batch_assets.pipeline import OF_ENVIRONMENT
from batch_assets.settings.environment import environment
from batch_assets.settings.folders import trained_model_folder


@dg.asset(group_name="model", kinds={"scikitlearn", "onnx"})
@as_dagster_failure
def iris_model() -> dg.MaterializeResult[None]:
    """The support vector classifier of the iris flowers, in `models/`.

    Trains it with scikit-learn, exports it to ONNX, and writes nothing unless both give the same probabilities.
    The files are in the repository and in the wheel: materialise this only to train anew. Without a checkout they go
    into `models/` of BATCH_ASSETS_HOME, and are used from then on. Where the pipeline scores with this model, hours are
    judged by the items that it was trained with.
    """
    from batch_assets.iris.baseline import baseline_of_training  # noqa: PLC0415 - as below
    from batch_assets.iris.training import train_iris_model  # noqa: PLC0415 - imports scikit-learn

    report = train_iris_model(trained_model_folder(environment()))
    baseline = baseline_of_training(OF_ENVIRONMENT.load(), report)
    return dg.MaterializeResult(
        metadata={
            "model_version": report.version,
            "rows": report.rows,
            "accuracy": report.accuracy,
            "log_loss": report.log_loss,
            "largest_difference": report.largest_difference,
            "baseline_items": baseline.items if baseline else 0,
            "file": dg.MetadataValue.path(report.model_filepath),
        }
    )
