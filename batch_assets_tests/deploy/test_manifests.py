"""What must hold of deploy/k8s that no schema says; see test_kubernetes.py for what it does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.manifests import (
    FOLDER,
    OVERLAYS,
    VERSIONS,
    Manifest,
    built,
    copied,
    faults,
    of_kind,
    pods,
    rights,
    weaknesses,
)
from batch_assets_tests.support.programs import git

MANAGED = "managed"
IMAGE = "registry.example.com/batch-assets:0.1.0"
SECRET = "not-in-git"
# Who has Dagster's instance, and with it all that dagster.yaml takes from the environment.
INSTANCES = ("webserver", "daemon")
LAUNCHER_ONLY = {"KUBERNETES_NAMESPACE"}


@pytest.fixture(scope="module", params=[*OVERLAYS, MANAGED])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Each overlay, and one with the database left out as its file says."""
    folder = copied(tmp_path_factory.mktemp("manifests"), SECRET)
    if request.param != MANAGED:
        return built(folder / "overlays" / request.param)
    file = folder / "overlays" / "large" / "kustomization.yaml"
    file.write_text(file.read_text().replace("../../mysql", "../../managed-database"))
    return built(file.parent)


def settings(manifests: list[Manifest], name: str) -> Any:
    """A file of the ConfigMap of Dagster's instance, read."""
    return yaml.safe_load(of_kind(manifests, "ConfigMap")["dagster"]["data"][name])


def launcher(manifests: list[Manifest]) -> Any:
    """What dagster.yaml says about the pods of the runs."""
    return settings(manifests, "dagster.yaml")["run_launcher"]["config"]


def test_it_fits_the_schemas_of_the_versions_in_support(manifests: list[Manifest]) -> None:
    assert len(VERSIONS) == 3
    assert [fault for manifest in manifests for fault in faults(manifest)] == []


def test_a_field_that_does_not_exist_is_found() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"sellector": {"a": "b"}}}
    assert len(list(faults(service))) == 3


def test_all_is_in_one_namespace_but_the_namespace(manifests: list[Manifest]) -> None:
    assert {manifest["metadata"].get("namespace") for manifest in manifests} == {None, "batch-assets"}
    assert list(of_kind([found for found in manifests if not found["metadata"].get("namespace")], "Namespace")) == [
        "batch-assets"
    ]


def test_every_pod_of_ours_has_the_same_image_and_so_have_the_runs(manifests: list[Manifest]) -> None:
    images = {name: pod["spec"]["containers"][0]["image"] for name, pod in pods(manifests).items() if name != "mysql"}
    assert set(images) == {"api", "code-server", "daemon", "migrations", "webserver"}
    assert set(images.values()) == {IMAGE}
    (code_server,) = pods(manifests)["code-server"]["spec"]["containers"]
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": IMAGE} in code_server["env"]
    assert "job_image" not in launcher(manifests)


def test_the_image_is_named_in_one_place(tmp_path: Path) -> None:
    folder = copied(tmp_path, SECRET)
    file = folder / "image" / "kustomization.yaml"
    file.write_text(file.read_text().replace("newTag: 0.1.0", 'newTag: "7"'))
    found = built(folder / "overlays" / "small")
    assert str(found).count("registry.example.com/batch-assets:7") == 6
    assert IMAGE not in str(found)


def test_no_pod_may_do_more_than_it_must(manifests: list[Manifest]) -> None:
    found = {name: list(weaknesses(pod["spec"])) for name, pod in pods(manifests).items()}
    assert not any(found.values()), found


def test_what_runs_for_long_is_probed(manifests: list[Manifest]) -> None:
    services = [service["spec"]["selector"] for service in of_kind(manifests, "Service").values()]
    for name, pod in pods(manifests).items():
        if name == "migrations":
            continue
        (container,) = pod["spec"]["containers"]
        assert {"startupProbe", "livenessProbe"} <= set(container), name
        called = any(selector.items() <= pod["metadata"]["labels"].items() for selector in services)
        assert ("readinessProbe" in container) == called, name


def test_only_who_starts_and_ends_runs_has_a_token(manifests: list[Manifest]) -> None:
    accounts = of_kind(manifests, "ServiceAccount")
    assert not any(account["automountServiceAccountToken"] for account in accounts.values())
    with_token = set()
    for name, pod in pods(manifests).items():
        assert pod["spec"]["serviceAccountName"] in accounts
        if pod["spec"]["automountServiceAccountToken"]:
            with_token.add(name)
    assert with_token == {"daemon", "webserver"} == {name for name in accounts if rights(manifests, name)}
    assert launcher(manifests)["run_k8s_config"]["pod_spec_config"]["automountServiceAccountToken"] is False
    assert launcher(manifests)["service_account_name"] in accounts
    assert not of_kind(manifests, "ClusterRole", "ClusterRoleBinding")


def test_selectors_find_what_they_are_for(manifests: list[Manifest]) -> None:
    templates = pods(manifests)
    for name, workload in of_kind(manifests, "Deployment", "StatefulSet").items():
        selector = workload["spec"]["selector"]["matchLabels"].items()
        assert [found for found, pod in templates.items() if selector <= pod["metadata"]["labels"].items()] == [name]
    for name, service in of_kind(manifests, "Service").items():
        selector = service["spec"]["selector"].items()
        assert [found for found, pod in templates.items() if selector <= pod["metadata"]["labels"].items()] == [name]
        ports = {port["name"] for port in templates[name]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for name, budget in of_kind(manifests, "PodDisruptionBudget").items():
        selector = budget["spec"]["selector"]["matchLabels"].items()
        assert [found for found, pod in templates.items() if selector <= pod["metadata"]["labels"].items()] == [name]
    (autoscaler,) = of_kind(manifests, "HorizontalPodAutoscaler").values()
    target = of_kind(manifests, "Deployment")[autoscaler["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"], "each `kubectl apply` would undo what the autoscaler has done"
    assert autoscaler["spec"]["minReplicas"] >= 3


def test_there_is_one_daemon_and_never_a_second_one(manifests: list[Manifest]) -> None:
    spec = of_kind(manifests, "Deployment")["daemon"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_what_is_referred_to_exists(manifests: list[Manifest]) -> None:
    there = {
        ("ConfigMap", name): set(found.get("data", {})) for name, found in of_kind(manifests, "ConfigMap").items()
    } | {("Secret", name): set(found["data"]) for name, found in of_kind(manifests, "Secret").items()}
    used = set()
    for name, pod in pods(manifests).items():
        for kind, referred, keys in references(pod["spec"]):
            used.add((kind, referred))
            assert keys <= there[kind, referred], f"{name} refers to {kind} {referred}: {keys}"
    for key, kind in (("env_config_maps", "ConfigMap"), ("env_secrets", "Secret")):
        assert {(kind, name) for name in launcher(manifests)[key]} <= set(there)
    assert used == set(there), "something is made that nobody uses"


def references(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    """The ConfigMaps and Secrets that a pod refers to, and the keys in them."""
    for volume in spec.get("volumes", []):
        if "configMap" in volume:
            mounted = [mount for found in spec["containers"] for mount in found["volumeMounts"]]
            files = {mount["subPath"] for mount in mounted if mount["name"] == volume["name"] and "subPath" in mount}
            yield "ConfigMap", volume["configMap"]["name"], files
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    yield kind, source[key]["name"], set()
        for variable in container.get("env", []):
            for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if key in variable.get("valueFrom", {}):
                    found = variable["valueFrom"][key]
                    yield kind, found["name"], {found["key"]}


def test_the_variables_that_dagster_asks_for_are_set(manifests: list[Manifest]) -> None:
    asked = set(variables(settings(manifests, "dagster.yaml")))
    assert {"MYSQL_DAGSTER_DATABASE", "DAGSTER_MAX_CONCURRENT_RUNS"} | LAUNCHER_ONLY <= asked
    for name in ("code-server", "migrations"):
        assert asked - LAUNCHER_ONLY <= environment(manifests, name), name
    for name in INSTANCES:
        assert asked | set(variables(settings(manifests, "workspace.yaml"))) <= environment(manifests, name), name
    data = {name: found["data"] for name, found in of_kind(manifests, "ConfigMap", "Secret").items()}
    config = launcher(manifests)
    given = {key for name in (*config["env_config_maps"], *config["env_secrets"]) for key in data[name]}
    assert asked - LAUNCHER_ONLY <= given


def environment(manifests: list[Manifest], name: str) -> set[str]:
    """The names of the variables that a workload's container sees."""
    (container,) = pods(manifests)[name]["spec"]["containers"]
    data = {name: found["data"] for name, found in of_kind(manifests, "ConfigMap", "Secret").items()}
    sources = [source.get("configMapRef", source.get("secretRef"))["name"] for source in container["envFrom"]]
    return {key for name in sources for key in data[name]} | {found["name"] for found in container.get("env", [])}


def variables(value: Any) -> Iterator[str]:
    """The variables that a file of settings takes from the environment."""
    if isinstance(value, dict):
        if set(value) == {"env"}:
            yield value["env"]
        for part in value.values():
            yield from variables(part)
    elif isinstance(value, list):
        for part in value:
            yield from variables(part)


def test_dagsters_home_can_be_written_to_and_has_its_settings(manifests: list[Manifest]) -> None:
    home = of_kind(manifests, "ConfigMap")["batch-assets"]["data"]["DAGSTER_HOME"]
    for name in ("code-server", "migrations", *INSTANCES):
        (container,) = pods(manifests)[name]["spec"]["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {home, "/tmp", f"{home}/dagster.yaml"} <= set(mounts)
        volumes = {volume["name"]: volume for volume in pods(manifests)[name]["spec"]["volumes"]}
        assert all("emptyDir" in volumes[mounts[path]["name"]] for path in (home, "/tmp"))
    assert {mount["mountPath"] for mount in launcher(manifests)["volume_mounts"]} == {home, "/tmp"}


def test_the_instance_is_that_of_the_repository_but_for_where_runs_run(manifests: list[Manifest]) -> None:
    ours, theirs = settings(manifests, "dagster.yaml"), yaml.safe_load((ROOT / "dagster.yaml").read_text())
    for key in set(theirs) - {"concurrency", "run_queue", "run_monitoring"}:
        assert ours.get(key) == theirs[key], key
    queue = ours["run_coordinator"]["config"]
    assert queue["tag_concurrency_limits"] == theirs["concurrency"]["runs"]["tag_concurrency_limits"]
    assert theirs["run_queue"].items() <= queue.items()
    assert ours["run_monitoring"]["enabled"] is theirs["run_monitoring"]["enabled"] is True


@dataclass(frozen=True)
class Place:
    """Something that may talk or be talked to; without labels of a pod, none of a cluster's."""

    name: str
    namespace: Mapping[str, str]
    pod: Mapping[str, str] | None


def elsewhere(name: str, labels: Mapping[str, str], pod: Mapping[str, str] | None = None) -> Place:
    return Place(name, labels, pod or {})


OTHERS = (
    elsewhere("clients", {"reaches-batch-assets-api": "true"}),
    elsewhere("proxy", {"reaches-batch-assets-webserver": "true"}),
    elsewhere("names", {"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"}),
    elsewhere("strangers", {"kubernetes.io/metadata.name": "strangers"}, {"reaches-database": "true"}),
    Place("world", {}, None),
    Place("database", {}, None),
)
PORTS = (("UDP", 53), *(("TCP", port) for port in (53, 443, 6443, 3306, 4000, 3000, 8000)))


def test_the_network_lets_through_what_must_pass_and_nothing_else(manifests: list[Manifest]) -> None:
    own = {"kubernetes.io/metadata.name": "batch-assets"}
    ours = [Place(name, own, pod["metadata"]["labels"]) for name, pod in pods(manifests).items()]
    ours.append(Place("run", own, {**launcher(manifests)["labels"], "app.kubernetes.io/component": "run_worker"}))
    policies = list(of_kind(manifests, "NetworkPolicy").values())
    passing = {
        (source.name, target.name, port)
        for source in (*ours, *OTHERS)
        for target in (*ours, *OTHERS)
        for port in PORTS
        if source in ours or target in ours
        if source not in ours or passes(policies, source, target, port, "egress")
        if target not in ours or passes(policies, target, source, port, "ingress")
    }
    database = "mysql" if "mysql" in pods(manifests) else "database"
    wanted = {(source.name, "names", ("UDP", 53)) for source in ours}
    wanted |= {(source.name, "names", ("TCP", 53)) for source in ours}
    for name in ("api", "code-server", "daemon", "migrations", "run", "webserver"):
        wanted.add((name, database, ("TCP", 3306)))
    for name in INSTANCES:
        wanted.add((name, "code-server", ("TCP", 4000)))
        # Wherever the API server is.
        wanted |= {(name, place.name, ("TCP", port)) for place in OTHERS for port in (443, 6443)}
    wanted |= {("clients", "api", ("TCP", 8000)), ("proxy", "webserver", ("TCP", 3000))}
    assert passing == wanted


def passes(policies: list[Manifest], own: Place, other: Place, port: tuple[str, int], direction: str) -> bool:
    """Whether a pod may talk to another place, or be talked to, as far as its own policies go."""
    isolated = False
    for policy in policies:
        spec = policy["spec"]
        if not selects(spec["podSelector"], own.pod) or direction.capitalize() not in spec["policyTypes"]:
            continue
        isolated = True
        for rule in spec.get(direction, []):
            peers = rule.get("to" if direction == "egress" else "from")
            ports = {(found["protocol"], found["port"]) for found in rule["ports"]}
            if port in ports and (peers is None or any(matches(peer, own, other) for peer in peers)):
                return True
    return not isolated


def matches(peer: Mapping[str, Any], own: Place, other: Place) -> bool:
    if "ipBlock" in peer:
        return other.name == "database"
    if other.pod is None:
        return False
    within = (
        selects(peer["namespaceSelector"], other.namespace)
        if "namespaceSelector" in peer
        else (other.namespace == own.namespace)
    )
    return within and selects(peer.get("podSelector", {}), other.pod)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str] | None) -> bool:
    assert set(selector) <= {"matchLabels"}
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= (labels or {}).items()


def test_no_secret_is_in_git() -> None:
    files = git("ls-files", "--cached", "--others", "--exclude-standard", "deploy/k8s").stdout.split()
    assert len(files) > 10
    for name in files:
        text = (ROOT / name).read_text()
        assert "kind: Secret" not in text, name
        if name.endswith(".env.example"):
            values = dict(line.split("=") for line in text.splitlines() if not line.startswith("#"))
            assert not any(values[key] for key in values if key.endswith(("PASSWORD", "KEY"))), name
            assert git("check-ignore", name.removesuffix(".example")).returncode == 0, name
    assert FOLDER.is_dir()
