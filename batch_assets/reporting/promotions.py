"""Which model is in force, where that is not the declared one, and who has put it in force."""

from batch_assets.database.records.promotions import ROLLBACK, Promotion, applies
from batch_assets.pipeline import Pipeline
from batch_assets.settings.model import model_text
from batch_assets.wording import short_version


def promotion_remarks(pipeline: Pipeline, newest: Promotion | None) -> list[str]:
    """Says which model was put in force, since when and by whom, or that this no longer applies; else nothing.

    Args:
        pipeline: The pipeline as it is declared.
        newest: Its newest promotion.
    """
    if newest is None or newest.restores_declared:
        return []
    done = "put in force again" if newest.action == ROLLBACK else "promoted"
    done = f"{done} on {newest.made_at:%Y-%m-%d %H:%M} UTC by {newest.made_by}"
    if applies(pipeline, newest):
        version = short_version(newest.version)
        return [f"The model in force is {newest.model}, {version}, {done}."]
    declared = model_text(pipeline.model, pipeline.folder)
    if declared == newest.model:  # whoever declared it has made the promotion needless
        return []
    sentence = (
        f"The model in force is the declared one, {declared}: that {newest.model} was {done} no longer "
        f"applies, since the pipeline declared {newest.declared} then."
    )
    return [sentence]
