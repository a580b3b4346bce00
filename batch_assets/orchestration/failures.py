"""What becomes of a fault in Dagster: a failed step that opens with the sentence, retried only where it helps.

`errors.py` says which fault is which.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

import dagster as dg

from batch_assets.errors import BatchAssetsError
from batch_assets.orchestration.names import run_tag
from batch_assets.pipeline import Declaration
from batch_assets.settings.environment import environment
from batch_assets.settings.retry import RetrySettings

# What a run that has failed is tagged with: why; whether the fault is permanent, so that the sensor leaves the hour to
# a person, or of the run alone, so that the sensor goes by the run before; and which hours of a range it was.
FAULT_TAG, FAULT_MESSAGE_TAG = "batch_assets/fault", "batch_assets/fault_message"
FAILED_PARTITIONS_TAG = "batch_assets/failed_partitions"
PERMANENT, OF_RUN = "permanent", "of run"
# And which run it was: one that is executed again has the tags of the first.
_FAULTY_RUN_TAG = "batch_assets/faulty_run"
_TAG_CHARACTERS = 255

_P = ParamSpec("_P")
_R = TypeVar("_R")


def as_dagster_failure(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Makes a `dg.Failure` of a fault that has a sentence, and has the step tried again if the fault is transient.

    Of a function of a step, or of an IO manager. Everything else goes on as the error it is.
    """

    @wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except BatchAssetsError as error:
            failure = dg.Failure(
                str(error),
                metadata={
                    "fault": type(error).__name__,
                    PERMANENT: error.permanent,
                    OF_RUN: error.of_run,
                    "failed partitions": ", ".join(error.partitions),
                },
                allow_retries=error.transient,
            )
            if error.transient:
                for context in (*args, *kwargs.values()):
                    if isinstance(context, (dg.AssetExecutionContext, dg.OutputContext, dg.InputContext)):
                        _try_again(context, failure)
            raise failure from error

    return wrapped


def _try_again(context: dg.AssetExecutionContext | dg.OutputContext | dg.InputContext, failure: dg.Failure) -> None:
    """Asks for another attempt of the step, if attempts are left.

    Not by a retry policy of the asset: with one, Dagster starts a step again that somebody has terminated.
    """
    settings = RetrySettings.from_environment(environment())
    if isinstance(context, dg.AssetExecutionContext):
        step = context.get_step_execution_context()
    else:
        step = context.step_context
    attempt = step.previous_attempt_count + 1
    if attempt > settings.transient_retries:
        return
    policy = dg.RetryPolicy(
        max_retries=settings.transient_retries,
        delay=settings.transient_retry_seconds,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )
    seconds = policy.calculate_delay(attempt)
    # What Dagster says of it begins with a stack trace.
    context.log.warning(
        "%s Tried again in %.1f seconds (%s of %s).", failure.description, seconds, attempt, policy.max_retries
    )
    raise dg.RetryRequested(policy.max_retries, seconds) from failure


def tag_fault(declaration: Declaration) -> dg.HookDefinition:
    """Returns the hook that tags the run of a step of a pipeline which failed for a fault with a sentence."""

    @dg.failure_hook(name=declaration.prefixed("tag_fault"))
    def tag(context: dg.HookContext) -> None:
        failure = context.op_exception
        if not isinstance(failure, dg.Failure) or PERMANENT not in failure.metadata:
            return
        run = context.instance.get_run_by_id(context.run_id)
        inherited = run and {FAULT_TAG, FAILED_PARTITIONS_TAG} & _tags(run, declaration).keys()
        tags = {
            **dict.fromkeys(inherited or (), ""),
            FAULT_MESSAGE_TAG: (failure.description or "")[:_TAG_CHARACTERS],
            _FAULTY_RUN_TAG: context.run_id,
        }
        for kind in (PERMANENT, OF_RUN):
            if failure.metadata[kind].value:
                tags[FAULT_TAG] = kind
        partitions = str(failure.metadata["failed partitions"].value)
        if partitions:
            tags[FAILED_PARTITIONS_TAG] = partitions
        of_pipeline = {run_tag(name, declaration): value for name, value in tags.items()}
        context.instance.add_run_tags(context.run_id, of_pipeline)

    return tag


def fault_tags(run: dg.DagsterRun, declaration: Declaration) -> Mapping[str, str]:
    """Returns the tags of a run, if they say why this run has failed a pipeline, under the names without its own."""
    tags = _tags(run, declaration)
    return tags if tags.get(_FAULTY_RUN_TAG, run.run_id) == run.run_id else {}


def _tags(run: dg.DagsterRun, declaration: Declaration) -> dict[str, str]:
    names = (FAULT_TAG, FAULT_MESSAGE_TAG, FAILED_PARTITIONS_TAG, _FAULTY_RUN_TAG)
    return {name: run.tags[tag] for name in names if (tag := run_tag(name, declaration)) in run.tags}
