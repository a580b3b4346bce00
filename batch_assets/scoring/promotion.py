"""Putting another model in force, and taking that back: checked first, and then recorded in one statement."""

from dataclasses import replace

from batch_assets.database.connection.engine import engine_for
from batch_assets.database.records.promotions import (
    PROMOTE,
    ROLLBACK,
    NamedModel,
    Promotion,
    model_in_force,
    named_model,
    newest_promotion,
    read_promotions,
    record_promotion,
    source_of,
    to_take_back,
)
from batch_assets.database.schema.tables import pipeline_tables
from batch_assets.errors import ModelError, PromotionError
from batch_assets.hours import utc_now
from batch_assets.inference.model_files import load_model
from batch_assets.inference.model_registry import resolve
from batch_assets.inference.model_version import version_in_force
from batch_assets.pipeline import Pipeline
from batch_assets.scoring.canary import CanaryResult, try_pipeline
from batch_assets.settings.model import ModelSource, RegisteredModel, model_text
from batch_assets.wording import short_version


def promote(pipeline: Pipeline, made_by: str) -> tuple[Promotion, CanaryResult]:
    """Puts the challenger in force, if it scores recent items as the next hour would be scored.

    Args:
        pipeline: The pipeline as it is declared.
        made_by: Who does it.

    Returns:
        What was recorded, and what became of the recent items.

    Raises:
        PromotionError: There is no challenger, it is in force already, or somebody else has promoted meanwhile.
        ModelError: It cannot be loaded, or does not fit the items.
        DatabaseError: The server is away, or does not take its answers.
    """
    if pipeline.challenger is None:
        raise PromotionError(
            f"The pipeline {pipeline.name} declares no challenger: name the model that is to be promoted in "
            "CHALLENGER_FILEPATH, or as `challenger` of a declared pipeline. Nothing was changed."
        )
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    newest = newest_promotion(engine, tables)
    in_force = model_in_force(pipeline, newest)
    challenger = replace(pipeline.challenger.model, sample_data_path=pipeline.model.sample_data_path)
    source: ModelSource = resolve(challenger) if isinstance(challenger, RegisteredModel) else challenger
    model = load_model(source, pipeline.items, pipeline.inference)
    before, after = _named(pipeline, in_force), named_model(pipeline, source, model.version)
    if _is_resolved(in_force, before, after):
        raise PromotionError(
            f"The challenger of {pipeline.name}, {after.model}, is the model in force already, "
            f"{short_version(model.version)}. Nothing was changed."
        )
    tried = try_pipeline(engine, replace(pipeline, model=source), model)
    promotion = _promotion(pipeline, newest, PROMOTE, made_by, (before, after), None)
    record_promotion(engine, tables, promotion)
    return promotion, tried


def roll_back(pipeline: Pipeline, made_by: str) -> Promotion:
    """Puts the model before the last promotion that was not taken back in force again, if it is still the one it was.

    Args:
        pipeline: The pipeline as it is declared.
        made_by: Who does it.

    Returns:
        What was recorded.

    Raises:
        PromotionError: There is nothing to take back, the model before cannot be loaded or is another one by now, or
            somebody else was faster.
        DatabaseError: The server is away.
    """
    engine, tables = engine_for(pipeline.database), pipeline_tables(pipeline)
    found = read_promotions(engine, tables)
    last = to_take_back(pipeline, found)
    if last is None:
        raise PromotionError(_nothing_to_take_back(pipeline, found[0] if found else None))
    # Of the declared model nothing is known that its declaration does not say: an alias may have moved.
    declared = last.model_before == last.declared and last.version_before is None
    try:
        before_last = pipeline.model if declared else source_of(pipeline, last.before)
        model = load_model(before_last, pipeline.items, pipeline.inference)
    except ModelError as error:
        raise PromotionError(
            f"The model before promotion {last.number}, {last.model_before}, cannot be put in force again: {error} "
            "Nothing was changed."
        ) from error
    after, before = replace(last.before, version=model.version), _named(pipeline, model_in_force(pipeline, found[0]))
    promotion = _promotion(pipeline, found[0], ROLLBACK, made_by, (before, after), last.number)
    record_promotion(engine, tables, promotion)
    return promotion


def _named(pipeline: Pipeline, source: ModelSource) -> NamedModel:
    """Returns the model in force, with its version as far as it can be told: it may be gone, and is to be replaced."""
    if source.sha256 is not None or isinstance(source, RegisteredModel):
        return named_model(pipeline, source, source.sha256)
    try:
        return named_model(pipeline, source, version_in_force(source))
    except ModelError:
        return named_model(pipeline, source, None)


def _is_resolved(in_force: ModelSource, before: NamedModel, after: NamedModel) -> bool:
    """Returns whether a model is the one in force, which an alias may name."""
    try:
        text = str(resolve(in_force)) if isinstance(in_force, RegisteredModel) else before.model
    except ModelError:
        return False
    same = (text, before.label_filepath) == (after.model, after.label_filepath)
    return same and before.version in (None, after.version)


def _promotion(  # noqa: PLR0913, PLR0917 - what a row says
    pipeline: Pipeline,
    newest: Promotion | None,
    action: str,
    made_by: str,
    models: tuple[NamedModel, NamedModel],
    takes_back: int | None,
) -> Promotion:
    before, after = models
    return Promotion(
        newest.number + 1 if newest else 1,
        action,
        utc_now().replace(microsecond=0),
        made_by,
        model_text(pipeline.model, pipeline.folder),
        after.model,
        after.label_filepath,
        after.version or "",
        before.model,
        before.label_filepath,
        before.version,
        takes_back,
    )


def _nothing_to_take_back(pipeline: Pipeline, newest: Promotion | None) -> str:
    declared = model_text(pipeline.model, pipeline.folder)
    if newest is None:
        reason = f"its declared model, {declared}, is in force, and nothing was promoted"
    elif newest.declared != declared:
        reason = f"it declares {declared} now, and no longer {newest.declared}, so that no promotion applies"
    else:
        reason = f"every promotion was taken back, and its declared model, {declared}, is in force"
    return f"There is nothing to take back of {pipeline.name}: {reason}. Nothing was changed."
