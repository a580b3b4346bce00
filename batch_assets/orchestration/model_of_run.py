"""Which model a run scores with: one for all its hours, and all attempts of its steps."""

import dagster as dg

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.promotions import (
    applies,
    model_in_force,
    newest_promotion,
    read_promotion,
    source_of,
)
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.inference.model_registry import resolve
from batch_assets.orchestration.names import run_tag
from batch_assets.pipeline import Declaration, Pipeline
from batch_assets.settings.model import ModelSource, RegisteredModel, model_text, registered_model

MODEL_TAG, PROMOTION_TAG = "batch_assets/model", "batch_assets/promotion"
# And which run it was: one that is executed again has the tags of the first.
_RUN_OF_MODEL_TAG = "batch_assets/run_of_model"
_NONE = "none"


def model_of_run(context: dg.AssetExecutionContext, declaration: Declaration, pipeline: Pipeline) -> ModelSource:
    """Returns the model that a run scores with: the one that was in force, as a version, when the run first asked.

    Where it may be another one a moment later, the run is tagged with it. A step that is tried again after a lost
    connection may have written a part of the hour, and must not write the rest with another model.

    Args:
        context: Of the step.
        declaration: The pipeline.
        pipeline: The same with its settings.

    Raises:
        SettingsError: MLflow is not installed, or no registry is named.
        ModelError: The registry has no such model, version or alias.
        RegistryError: It does not answer, or not to this process.
        DatabaseError: The promotions cannot be read.
    """
    newest = newest_promotion(engine_for(pipeline.database), pipeline_tables(pipeline))
    if newest is None and pipeline.challenger is None and not isinstance(pipeline.model, RegisteredModel):
        return pipeline.model
    # As it is now: the run of the context has the tags with which the process began.
    run_id = context.run.run_id
    run, owner_tag = context.instance.get_run_by_id(run_id), run_tag(_RUN_OF_MODEL_TAG, declaration)
    if run and run.tags.get(owner_tag) == run_id:
        # Of the version before, a run has no tag that names a promotion.
        promotion = run.tags.get(run_tag(PROMOTION_TAG, declaration), _NONE)
        return _as_tagged(pipeline, run.tags[run_tag(MODEL_TAG, declaration)], promotion)
    source = model_in_force(pipeline, newest)
    resolved = resolve(source) if isinstance(source, RegisteredModel) else source
    text, promotion = model_text(resolved, pipeline.folder), _NONE
    if newest and applies(pipeline, newest):
        promotion = str(newest.number)
        context.log.info("The model of this run is %s, by promotion %s.", text, promotion)
    elif resolved != source:
        context.log.info("The model of this run is %s, which %s names.", resolved, source)
    tags = {MODEL_TAG: text, PROMOTION_TAG: promotion, _RUN_OF_MODEL_TAG: run_id}
    context.instance.add_run_tags(run_id, {run_tag(tag, declaration): value for tag, value in tags.items()})
    return resolved


def _as_tagged(pipeline: Pipeline, model: str, promotion: str) -> ModelSource:
    """Returns the model that the run was tagged with, whatever is in force by now."""
    if promotion != _NONE:
        row = read_promotion(engine_for(pipeline.database), pipeline_tables(pipeline), int(promotion))
        return source_of(pipeline, row.after)
    declared = pipeline.model
    if isinstance(declared, RegisteredModel):
        return registered_model(model, declared.label_filepath, declared.sample_data_path)
    return declared
