"""The audit of the locks: it is green only where the service has answered, and red where something is known."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets_tests.support.instance import ROOT

# In the place of pip-audit, which asks the network: what is known is in a file beside it.
STAND_IN = """
import json, pathlib, sys


def main():
    known = json.loads((pathlib.Path(__file__).parent / "known.json").read_text())
    if known is None:
        sys.exit("requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org')")
    said = []
    for line in pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text().splitlines():
        name, version = line.split("==")
        found = known.get(name)
        answer = {"skip_reason": "not found"} if found is None else {"version": version, "vulns": found}
        said.append({"name": name, **answer})
    print(json.dumps({"dependencies": said, "fixes": []}))
    sys.exit(any(package.get("vulns") for package in said))


if __name__ == "__main__":
    main()
"""
BAD = [{"id": "PYSEC-2026-1", "fix_versions": ["2.11"], "aliases": [], "description": ""}]


@pytest.mark.parametrize(
    ("known", "status", "said"),
    [
        ({"jinja2": BAD, "click": [], "rich": []}, 0, "Nothing is known to be wrong with the 2 packages of"),
        ({"jinja2": BAD, "click": BAD, "rich": []}, 1, "VULNERABLE: click 8.2.0: PYSEC-2026-1, fixed in 2.11\n"),
        ({"jinja2": BAD, "click": BAD}, 1, "VULNERABLE: click"),
        ({"jinja2": BAD, "click": []}, 75, "NOT AUDITED: rich: the service has no answer.\n"),
        ({"jinja2": [], "click": [], "rich": []}, 75, "NOT AUDITED: pip-audit finds nothing wrong with jinja2==2.10"),
        ({}, 75, "NOT AUDITED"),
        (None, 75, "ConnectionError"),
    ],
    ids=["good", "bad", "bad and unknown", "unknown", "no vulnerabilities", "no packages", "no network"],
)
def test_the_audit_is_green_only_where_the_service_has_answered(
    known: dict[str, Any] | None, status: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "pip_audit.py").write_text(STAND_IN)
    (tmp_path / "known.json").write_text(json.dumps(known))
    (tmp_path / "lock.txt").write_text("click==8.2.0\nrich==14.0\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "audit.py"), str(tmp_path / "lock.txt")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr
