"""What the README and the documentation name is there: files, targets, options, variables, codes, roles and links."""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.cli.main import main
from batch_assets_tests.support.pages import PAGES, ROOT, blocks, name_of
from batch_assets_tests.support.programs import find_program

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
FOLDERS = ("batch_assets", "batch_assets_tests", "benchmarks", "deploy", "docs", "examples", "models", ".ci", ".github")
# What whoever follows a guide makes.
MADE_BY_THE_READER = {"deploy/settings.env"}
CODE = "\n".join(
    path.read_text("utf-8")
    for folder in ("batch_assets", "batch_assets_tests/support", "benchmarks", "deploy", ".ci")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in {".py", ".yaml", ".env", ".sh", ".sql", ""}
) + "".join((ROOT / name).read_text("utf-8") for name in ("dagster.yaml", "Dockerfile", "Makefile"))
# What we found out is about others' names.
CHECKED = [*(page for page in PAGES if page.name != "facts.md"), WORKFLOW]


def _code(text: str) -> str:
    """Returns what a page shows as code, all of it for a page that is nothing else."""
    blocks_and_spans = re.findall(r"^```\w.*?^```$|`[^`\n]+`", text, re.DOTALL | re.MULTILINE)
    return "\n".join(span.strip("`") for span in blocks_and_spans)


def _shown(page: Path) -> str:
    text = page.read_text("utf-8")
    return text if page == WORKFLOW else _code(text)


def _named(pattern: str) -> list[str]:
    return sorted({name for page in CHECKED for name in re.findall(pattern, _shown(page), re.MULTILINE)})


def _batch_assets_commands() -> Iterator[tuple[str, list[str]]]:
    """Yields the commands of `batch-assets` that the pages show, each with its options."""
    for page in CHECKED:
        for name, rest in re.findall(r"batch-assets ([a-z][a-z-]*)([^\n|&;]*)", _shown(page)):
            # That is also the name of the image, of the namespace and of the extra.
            if name in main.commands or "--" not in rest:
                yield name, re.findall(r"(?<!\S)(--[a-z-]+)", rest)


@pytest.mark.parametrize("target", _named(r"(?:^|[ \"])make ([a-z]+)\b"))
def test_the_targets_of_make_exist(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("path", _named(rf"(?<![\w./-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w)"))
def test_the_files_exist(path: str) -> None:
    is_tag = f'"{path}"' in CODE
    assert is_tag or (ROOT / path).exists() or path in MADE_BY_THE_READER


@pytest.mark.parametrize("page", CHECKED, ids=name_of)
def test_what_kubectl_is_given_exists(page: Path) -> None:
    for path in re.findall(r"kubectl apply -k (\S+)", _shown(page)):
        assert any((folder / path / "kustomization.yaml").exists() for folder in (ROOT, ROOT / "deploy" / "k8s")), path


def test_the_commands_of_batch_assets_exist_with_their_options() -> None:
    shown = list(_batch_assets_commands())
    assert {"init-db", "register", "status", "retry", "prune", "serve"} <= {name for name, _ in shown}
    for name, options in shown:
        if name in main.commands:
            known = {option for parameter in main.commands[name].params for option in parameter.opts}
            assert set(options) <= known, name
    assert {name for name in main.commands if name != "demo"} <= {name for name, _ in shown}


def test_the_benchmarks_exist_with_their_options() -> None:
    shown = [found for page in CHECKED for found in re.findall(r"benchmarks\.(\w+)([^\n`]*)", _shown(page))]
    assert shown
    for name, rest in shown:
        module = ROOT / "benchmarks" / name
        source = (module / "__main__.py" if module.is_dir() else module.with_suffix(".py")).read_text("utf-8")
        for option in re.findall(r"--[a-z-]+", rest):
            assert f'"{option}"' in source, f"{name} has no option {option}"


@pytest.mark.parametrize("name", _named(r"(?<![\w*])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w*])"))
def test_the_variables_exist(name: str) -> None:
    assert re.search(rf"(?<!\w){name}(?!\w)", _variables_of_mlflow() if name.startswith("MLFLOW_") else CODE)


def _variables_of_mlflow() -> str:
    # Not by an import of MLflow, which takes seconds.
    found = importlib.util.find_spec("mlflow")
    assert found
    assert found.origin
    return Path(found.origin).with_name("environment_variables.py").read_text("utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=name_of)
def test_the_links_lead_somewhere(page: Path) -> None:
    # Those between the pages of the site are followed when it is built.
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    for path, _, anchor in (link.partition("#") for link in links if not link.startswith("http")):
        target = page.parent / path
        assert target.exists(), path
        assert not anchor or f"#{anchor}" in _anchors(target), f"{path}#{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_codes_of_failed_items_are_those_of_the_code() -> None:
    table = (ROOT / "docs" / "guides" / "retry.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| ", table.split("| code |")[1].split("\n\n")[0], re.MULTILINE))
    assert listed == set(re.findall(r'(?:\bRefusedError\(|BadValues\([^"]*|code = )"(\w+)"', CODE))


def test_the_roles_are_those_of_the_grants() -> None:
    granted = set(re.findall(r"CREATE ROLE IF NOT EXISTS (\w+)", CODE))
    assert granted == set(_named(r"\b(batch_assets_(?:batch|api|prune|migrations))\b"))


def test_what_is_shown_as_json_is_json() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "json":
                json.loads(block.text)


def test_every_line_for_a_shell_can_be_parsed() -> None:
    bash = find_program("bash", "install bash")
    for page in PAGES:
        script = "\n".join(block.text for block in blocks(page) if block.language == "shell")
        done = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{name_of(page)}: {done.stderr}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
