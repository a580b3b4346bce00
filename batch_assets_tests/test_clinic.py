"""The example of three pipelines side by side, in a folder of its own: what it writes is what scikit-learn says."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batch_assets_tests.support.command_line import COMMAND, table_rows
from batch_assets_tests.support.database import Sql
from batch_assets_tests.support.instance import INSTANCE_OF_TESTS
from batch_assets_tests.support.programs import ROOT

pytestmark = pytest.mark.above_sql


@pytest.mark.slow
def test_the_pipelines_of_the_example_say_what_scikit_learn_says(
    database_environment: dict[str, str], sql: Sql, tmp_path: Path
) -> None:
    clinic = tmp_path / "clinic"
    shutil.copytree(ROOT / "examples" / "clinic", clinic, ignore=shutil.ignore_patterns("models", ".batch_assets"))
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE_OF_TESTS)

    def run(*command: str) -> str:
        environment = {**os.environ, "DAGSTER_HOME": str(home)}
        done = subprocess.run(
            command, cwd=clinic, env=environment, capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "prepare.py", "--hours", "1")
    run(COMMAND, "init-db")
    ((hour,),) = sql("SELECT MAX(created_at) FROM patients")
    key = f"{str(hour)[:10]}-{str(hour)[11:13]}:00"
    for name in ("batch_inference", "diabetes_batch_inference", "breast_cancer_batch_inference"):
        tags = json.dumps({"dagster/partition": key})
        run(sys.executable, "-m", "dagster", "job", "execute", "-m", "clinic.definitions", "-j", name, "--tags", tags)

    example = runpy.run_path(str(clinic / "prepare.py"))
    patients, biopsies = example["patients"]()[0], example["biopsies"]()[0].to_numpy()
    found = [value for (value,) in sql("SELECT progression FROM patients ORDER BY id")]
    np.testing.assert_allclose(found, example["diabetes_model"]().predict(patients), rtol=1e-4)
    classifier = example["breast_cancer_model"]()
    rows = sql("SELECT diagnosis, certainty FROM biopsies ORDER BY id")
    assert [label for label, _ in rows] == classifier.predict(biopsies).tolist()
    certainty = classifier.predict_proba(biopsies).max(axis=1)
    np.testing.assert_allclose([share for _, share in rows], certainty, rtol=1e-3)
    sums = [row[1:5] for row in table_rows(run(COMMAND, "status")) if row[0] == "sum"]
    assert sorted(sums) == [["442", "442", "0", "0"], ["442", "442", "0", "0"], ["569", "569", "0", "0"]]
