"""What the items look like that the iris model is trained with, for hours to be judged by."""

from batch_assets.database.records.profiles import Baseline
from batch_assets.database.records.promotions import with_model_in_force
from batch_assets.inference.model_version import version_in_force
from batch_assets.iris.training import TrainingReport, training_items
from batch_assets.pipeline import Pipeline
from batch_assets.reporting.drift import baseline_from_items


def baseline_of_training(pipeline: Pipeline, report: TrainingReport) -> Baseline | None:
    """Stores the baseline of a model that was trained, None if the pipeline scores with another one.

    Args:
        pipeline: The pipeline as it is declared.
        report: What the training came to.

    Raises:
        ModelError: The model in force cannot be read.
        DatabaseError: The server is away, or a table is missing: run `batch-assets init-db`.
    """
    in_force = with_model_in_force(pipeline)
    if version_in_force(in_force.model) != report.version:
        return None
    return baseline_from_items(in_force, training_items(), "the training of iris_model")
