"""Scores on a Ray cluster: actors hold the model and are handed parts of an hour. All else stays in this process."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from batch_assets.errors import BatchAssetsError, ClusterUnavailableError, ModelError, SettingsError
from batch_assets.inference.model_content import ModelContent
from batch_assets.inference.model_files import open_content
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.packed_lists import Values
from batch_assets.scoring.outcomes import Outcome, outcome_of
from batch_assets.scoring.workers import Part, Workers
from batch_assets.settings.inference import InferenceSettings
from batch_assets.wording import counted

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

# How long a cluster may take to answer, to take this process in, and to start the first actor: nodes may have to come.
_ANSWER_SECONDS = 10.0
_CONNECT_SECONDS = 60.0
_START_SECONDS = 300.0
# How often a part is scored: a node that dies takes one attempt, a part that kills its actor takes all of them.
_ATTEMPTS = 3
_LOOK_AGAIN_SECONDS = 0.1
_GPU_PROVIDERS = {"CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"}


class ScoringActor:
    """Holds the model on a node of the cluster."""

    def __init__(self) -> None:
        self._model: OnnxModel | None = None

    def open(self, content: ModelContent, providers: Sequence[str]) -> str | BatchAssetsError:
        """Opens the model with one thread, unless it is open; returns its version or why it cannot be opened."""
        if self._model is None:
            try:
                self._model = open_content(content, providers, 1)
            except BatchAssetsError as error:
                return error
        return self._model.version

    def outcome(self, values: Sequence[Values], width: int, json_columns: Collection[str]) -> Outcome | ModelError:
        """Scores a part, and returns what became of it or why the model cannot be run."""
        assert self._model is not None  # noqa: S101 - it has said its version
        try:
            return outcome_of(self._model, values, width, json_columns)
        except ModelError as error:
            return ModelError(str(error))


@contextlib.contextmanager
def ray_workers(
    inference: InferenceSettings,
    model: OnnxModel,
    json_columns: Collection[str],
    on_progress: Callable[[str], None],
    patience_seconds: float = _START_SECONDS,
) -> Iterator[Workers]:
    """Yields actors on the cluster of `ray_address`, and ends them.

    Args:
        inference: The cluster, and how many actors it is to have.
        model: The model, loaded with these settings.
        json_columns: Columns of JSON, which take a label or a number as JSON text.
        on_progress: Is told what a person who looks at the run should know.
        patience_seconds: So long an hour waits while no actor is there.

    Raises:
        SettingsError: Ray is not installed, or the cluster has other versions or lacks this package.
        ClusterUnavailableError: The cluster does not answer, or has no room for an actor.
    """
    address = str(inference.ray_address)
    try:
        import ray  # noqa: PLC0415 - of an extra, and heavy
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"BATCH_RAY_ADDRESS is {address}, and the package {error.name} is missing: install batch-assets with the "
            "extra `ray`, or unset BATCH_RAY_ADDRESS."
        ) from error
    own = not ray.is_initialized()
    if own:
        _connect(address)
    try:
        with _faults_of(address):
            resource = "GPU" if _GPU_PROVIDERS.intersection(inference.providers) else "CPU"
            count = inference.ray_actors or max(1, int(ray.cluster_resources().get(resource, 0)))
            of_actor = {"num_cpus": 1, "num_gpus": int(resource == "GPU"), "scheduling_strategy": "SPREAD"}
            actors = _Actors(address, model, inference.providers, of_actor, patience_seconds)
            actors.start(count)
        on_progress(f"{counted(count, 'actor')} on the Ray cluster at {address} score.")
        try:
            yield Workers(count, lambda part: actors.outcome(part, json_columns), actors.stop)
        finally:
            actors.stop()
        if actors.lost:
            on_progress(f"{counted(actors.lost, 'actor')} of the Ray cluster died; what they had was scored again.")
    finally:
        if own:
            ray.shutdown()


class _Actors:
    """The actors of one hour, and who of them has nothing to do. Several threads hand them parts."""

    def __init__(
        self,
        address: str,
        model: OnnxModel,
        providers: Sequence[str],
        of_actor: dict[str, Any],
        patience_seconds: float,
    ) -> None:
        import ray  # noqa: PLC0415 - see above

        self.lost = 0
        self._ray = ray
        self._address = address
        self._version = model.version
        self._providers = providers
        self._content = ray.put(model.content)
        self._class = ray.remote(ScoringActor).options(**of_actor)
        self._patience_seconds = patience_seconds
        self._change = threading.Condition()
        self._starting: dict[ObjectRef[Any], ActorHandle[Any]] = {}
        self._idle: list[ActorHandle[Any]] = []
        self._busy: list[ActorHandle[Any]] = []
        self._stopped = False
        self._last_fault = "none of them has started"

    def start(self, count: int) -> None:
        """Has so many actors open the model, wherever there is room."""
        for _ in range(count):
            self._ask_for_version(self._class.remote())

    def _ask_for_version(self, actor: "ActorHandle[Any]") -> None:
        self._starting[actor.open.remote(self._content, self._providers)] = actor

    def outcome(self, part: Part, json_columns: Collection[str]) -> Outcome:
        """Has an actor score a part; another one, if it dies.

        Raises:
            ModelError: The model cannot be run at all.
            ClusterUnavailableError: No actor is left, or each that had it died.
        """
        for _ in range(_ATTEMPTS):
            with _faults_of(self._address):
                actor = self._take()
                try:
                    found = self._ray.get(actor.outcome.remote(part.values, part.width, json_columns))
                except self._ray.exceptions.RayTaskError:  # a fault of ours, which nobody has a sentence for
                    self._give_back(actor)
                    raise
                except self._ray.exceptions.RayError as error:
                    self._replace(actor, error)
                    continue
                self._give_back(actor)
            if isinstance(found, ModelError):
                raise found
            return found  # type: ignore[no-any-return]  # of an actor
        raise ClusterUnavailableError(
            f"{_ATTEMPTS} actors of the Ray cluster at {self._address} died while they scored the same "
            f"{counted(len(part.values), 'item')}, the last one so: {self._last_fault}. What was scored before is "
            "kept. If it happens again, look at the memory of the nodes and at these items (the first one has the id "
            f"{part.keys[0]})."
        )

    def stop(self) -> None:
        """Ends all of them, whatever they are at."""
        with self._change:
            self._stopped = True
            actors = [*self._starting.values(), *self._idle, *self._busy]
            self._starting, self._idle, self._busy = {}, [], []
            self._change.notify_all()
        for actor in actors:
            # One that cannot be reached any more ends with this process's place in the cluster.
            with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError, ValueError):
                self._ray.kill(actor)

    def _take(self) -> "ActorHandle[Any]":
        """Returns an actor that has nothing to do, and waits until there is one."""
        deadline = time.monotonic() + self._patience_seconds
        with self._change:
            while True:
                if self._stopped:
                    raise ClusterUnavailableError("Scoring on the Ray cluster has ended.")
                self._look_who_has_started()
                if self._idle:
                    self._busy.append(self._idle.pop())
                    return self._busy[-1]
                if self._busy:
                    deadline = time.monotonic() + self._patience_seconds
                elif time.monotonic() > deadline:
                    raise ClusterUnavailableError(
                        f"The Ray cluster at {self._address} has had no actor for {self._patience_seconds:g} seconds: "
                        f"{self._last_fault}. What was scored before is kept. Look at its nodes (ray status), and "
                        "whether others have taken its processors."
                    )
                self._change.wait(_LOOK_AGAIN_SECONDS)

    def _look_who_has_started(self) -> None:
        if not self._starting:
            return
        ready, _ = self._ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0)
        for reference in ready:
            actor = self._starting.pop(reference)
            try:
                version = self._ray.get(reference)
            except self._ray.exceptions.RayActorError as error:
                if error.actor_init_failed:
                    raise _cannot_run(self._address, error) from error
                self._last_fault = _one_line(error)
                self.start(1)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise _cannot_run(self._address, error) from error
            if isinstance(version, BatchAssetsError):
                raise version
            if version != self._version:
                raise ModelError(
                    f"An actor of the Ray cluster at {self._address} has opened the model {version}, not "
                    f"{self._version}. Nothing is scored with it: materialise the hour again."
                )
            self._idle.append(actor)

    def _give_back(self, actor: "ActorHandle[Any]") -> None:
        with self._change:
            if not self._stopped:
                self._busy.remove(actor)
                self._idle.append(actor)
                self._change.notify()

    def _replace(self, actor: "ActorHandle[Any]", error: Exception) -> None:
        """Starts another actor in the place of one that died, or was not heard of again."""
        with self._change:
            if self._stopped:
                return
            self._busy.remove(actor)
            self._last_fault = _one_line(error)
            self.lost += 1
            self._ray.kill(actor)
            self.start(1)
            # Others may have died with it, which is to cost no part another attempt.
            for idle in self._idle:
                self._ask_for_version(idle)
            self._idle = []
            self._change.notify()


def _connect(address: str) -> None:
    """Takes this process into a cluster, within a limit.

    Raises:
        SettingsError: The cluster has another version of Ray or Python, or this machine is none of its nodes.
        ClusterUnavailableError: It does not answer.
    """
    import ray  # noqa: PLC0415 - see above

    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise _unavailable(address, error) from error
    faults: list[Exception] = []

    def connect() -> None:
        try:
            ray.init(address, configure_logging=False, log_to_driver=False)
        except Exception as error:  # noqa: BLE001 - of any kind; raised by the thread that waits
            faults.append(error)

    # Ray has no limit for all of it. And in the thread of the run, it would take the place of what Dagster does when a
    # run is to be terminated.
    thread = threading.Thread(target=connect, name="ray", daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    if thread.is_alive():
        raise _unavailable(address, TimeoutError(f"no answer of Ray within {_CONNECT_SECONDS:g} seconds"))
    for fault in faults:
        ray.shutdown()  # the Ray Client would keep this process from joining another cluster
        if isinstance(fault, (OSError, ray.exceptions.RayError)):
            raise _unavailable(address, fault) from fault
        raise SettingsError(
            f"This process cannot join the Ray cluster at {address}: {_one_line(fault)}. Use the versions of Ray and "
            "Python that the cluster has, and ray://HOST:10001 from a machine that is none of its nodes."
        ) from fault


@contextlib.contextmanager
def _faults_of(address: str) -> Iterator[None]:
    """Has what happens to the cluster itself come with a sentence."""
    from ray.exceptions import RayError, RayTaskError  # noqa: PLC0415 - see above

    try:
        yield
    except RayTaskError:
        raise
    except (RayError, ConnectionError) as error:
        raise _unavailable(address, error) from error


def _unavailable(address: str, error: Exception) -> ClusterUnavailableError:
    return ClusterUnavailableError(
        f"The Ray cluster at {address} does not answer: {_one_line(error)}. What was scored before is kept. Start it, "
        "or fix BATCH_RAY_ADDRESS."
    )


def _cannot_run(address: str, error: Exception) -> SettingsError:
    return SettingsError(
        f"The nodes of the Ray cluster at {address} cannot run batch_assets: {_one_line(error)}. Install the same "
        "version of batch-assets there, with all it needs."
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else f"{text[:297]}...").rstrip(".")
