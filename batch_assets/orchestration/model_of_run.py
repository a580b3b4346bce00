"""Which version of a registered model a run scores with: one for all its hours, and all attempts of its steps."""

import dagster as dg

from batch_assets.inference.model_registry import resolve
from batch_assets.orchestration.names import run_tag
from batch_assets.pipeline import Declaration
from batch_assets.settings.model import ModelSource, RegisteredModel, registered_model

MODEL_TAG = "batch_assets/model"
# And which run it was: one that is executed again has the tags of the first.
_RUN_OF_MODEL_TAG = "batch_assets/run_of_model"


def model_of_run(context: dg.AssetExecutionContext, declaration: Declaration, model: ModelSource) -> ModelSource:
    """Returns the model that a run scores with: of an alias the version that it named when the run first asked.

    The run is tagged with it. A step that is tried again after a lost connection may have written a part of the hour,
    and must not write the rest with another model.

    Args:
        context: Of the step.
        declaration: The pipeline.
        model: As it is declared.

    Raises:
        SettingsError: MLflow is not installed, or no registry is named.
        ModelError: The registry has no such model, version or alias.
        RegistryError: It does not answer, or not to this process.
    """
    if not isinstance(model, RegisteredModel):
        return model
    run_id = context.run.run_id
    model_tag, owner_tag = run_tag(MODEL_TAG, declaration), run_tag(_RUN_OF_MODEL_TAG, declaration)
    # As it is now: the run of the context has the tags with which the process began.
    run = context.instance.get_run_by_id(run_id)
    if run and run.tags.get(owner_tag) == run_id:
        return registered_model(run.tags[model_tag], model.label_filepath, model.sample_data_path)
    resolved = resolve(model)
    context.log.info("The model of this run is %s, which %s names.", resolved, model)
    context.instance.add_run_tags(run_id, {model_tag: str(resolved), owner_tag: run_id})
    return resolved
