"""The reference is that of the code: settings with their defaults, metadata, tables, and the site as it is built."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.component import pipeline_definitions
from batch_assets.database.schema.tables import metadata
from batch_assets.definitions import defs
from batch_assets.pipeline import OF_ENVIRONMENT, pipeline_from_environment
from batch_assets.settings.alerts import AlertSettings
from batch_assets.settings.api import ApiSettings
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.engines import ITEMS
from batch_assets_tests.support.onnx_models import write_classifier
from batch_assets_tests.support.pages import PAGES, ROOT, blocks
from batch_assets_tests.support.pipeline import GOOD, HOUR, LABELS, insert_items

REFERENCE = ROOT / "docs" / "reference"
VARIABLE = r"(?:MYSQL|BATCH|MODEL|LABEL|SAMPLE|CHALLENGER|API|MLFLOW)_[A-Z_]+"


def _rows(page: str, heading: str = "") -> Iterator[list[str]]:
    """Yields the cells of the tables of a page, or of one of its sections."""
    text = (REFERENCE / page).read_text("utf-8")
    if heading:
        text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        yield line.split(" | ")


def _keys(heading: str) -> set[str]:
    return {key for first, *_ in _rows("metadata.md", heading) for key in re.findall(r"`([^`]+)`", first)}


def test_the_settings_are_the_variables_that_the_code_reads() -> None:
    sources = [*(ROOT / "batch_assets").rglob("*.py"), ROOT / "dagster.yaml"]
    read = {
        name
        for path in sources
        for name in re.findall(rf'(?:"|env: )({VARIABLE})(?:"|$)', path.read_text("utf-8"), re.MULTILINE)
    }
    assert {first.strip("`") for first, *_ in _rows("settings.md")} == read


@pytest.mark.parametrize(
    ("name", "default"),
    [
        (row[0].strip("`"), row[2].strip("`"))
        for row in _rows("settings.md")
        # Those of a server need one, and what MLflow reads is tested with MLflow.
        if len(row) == 3 and re.fullmatch(r"`[^`]+`", row[2]) and not row[0].startswith(("`MYSQL", "`MLFLOW"))
    ],
)
def test_to_set_a_variable_to_its_default_changes_nothing(name: str, default: str) -> None:
    home = {"BATCH_ASSETS_HOME": "/nowhere"}
    assert pipeline_from_environment({**home, name: default}) == pipeline_from_environment(home)
    assert ApiSettings.from_environment({name: default}) == ApiSettings.from_environment({})


def test_the_tags_of_runs_are_those_of_the_code() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "batch_assets").rglob("*.py"))
    assert _keys("Tags of runs") == set(re.findall(r'"(batch_assets/\w+)"', code))


SHOWN = [
    found
    for page in PAGES
    for block in blocks(page)
    for found in re.findall(r"\b((?:BATCH|API)_[A-Z_]+)=([^\s']+)", block.text)
]


@pytest.mark.parametrize(("name", "value"), sorted(set(SHOWN)))
def test_the_values_that_are_shown_for_a_variable_can_be_used(name: str, value: str) -> None:
    server = {"MYSQL_SERVER": "db", "MYSQL_USER": "batch", "MYSQL_PASSWORD": "secret", "MYSQL_DATABASE": "shop"}
    pipeline_from_environment({**server, name: value})
    ApiSettings.from_environment({name: value})
    AlertSettings.from_environment({name: value})


def test_every_table_and_column_says_what_it_is() -> None:
    for table in (ITEMS, *metadata.tables.values()):
        assert table.info["doc"]
        assert [column.name for column in table.columns if not column.doc] == []


def test_the_metadata_are_those_of_the_events(
    tables: dict[str, str], sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_server = "MYSQL_SERVER" in tables
    if on_server:
        monkeypatch.setenv("BATCH_MAX_SLOWDOWN", "2")
    # So many that no phase takes less than the millisecond that is the least one shown.
    insert_items(sql, [*GOOD * 2_000, "[1.0]"])
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("batch_inference")
        assert job.execute_in_process(partition_key=HOUR, instance=instance).success
        for asset in ("raw_items", "predictions", "run_summary"):
            [event] = instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
            assert event.asset_materialization is not None
            keys = {"label LABEL" if key.startswith("label ") else key for key in event.asset_materialization.metadata}
            assert keys == _keys(asset) - (set() if on_server else {"slowdown"})


@pytest.mark.usefixtures("tables")
def test_the_metadata_of_a_challenger_are_those_of_its_event(
    sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_classifier(tmp_path, labels=list(LABELS), sample=False)
    monkeypatch.setenv("CHALLENGER_FILEPATH", str(files.model_filepath))
    monkeypatch.setenv("CHALLENGER_LABEL_FILEPATH", str(files.label_filepath))
    key, *_ = insert_items(sql, GOOD)
    known = "INSERT INTO actuals (pipeline, item_id, label, known_at) VALUES ('items', %s, 'setosa', %s)"
    sql(known, key, "2026-11-02 07:00:00")
    with dg.DagsterInstance.get() as instance:
        for job in ("batch_inference", "challenger"):
            definition = pipeline_definitions(OF_ENVIRONMENT).resolve_job_def(job)
            assert definition.execute_in_process(partition_key=HOUR, instance=instance).success
        [event] = instance.fetch_materializations(dg.AssetKey("challenger_predictions"), limit=1).records
    assert event.asset_materialization is not None
    assert set(event.asset_materialization.metadata) == _keys("challenger_predictions")


class _Requests(HTMLParser):
    """Collects what a browser loads by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        loaded = tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}
        self.urls += [url for url in (given.get("src"), given.get("href") if loaded else None) if url]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        requests = _Requests()
        requests.feed(page.read_text("utf-8"))
        # A list that touches a table becomes a part of it.
        assert "<td>- " not in page.read_text("utf-8"), page
        assert [url for url in requests.urls if re.match(r"(https?:)?//", url)] == [], page
    tables = (tmp_path / "reference" / "tables.html").read_text("utf-8")
    assert all(
        f"<code>{column.name}</code>" in tables
        for table in (ITEMS, *metadata.tables.values())
        for column in table.columns
    )
    assert "POST /data" in (tmp_path / "reference" / "web-api.html").read_text("utf-8")
    assert "--items-older-than" in (tmp_path / "reference" / "command-line.html").read_text("utf-8")
    assert "MySQLIOManager" in (tmp_path / "reference" / "io-manager.html").read_text("utf-8")
