"""Ask PyPI whether anything is known to be wrong with a package of a lock.

    .venv/bin/python .ci/audit.py requirements-dev.txt

Exit status 0: nothing is known. 1: something is, and is printed. 75: it could not be found out.

For pip-audit, a package that the service does not know is one without a known vulnerability, and where the service has
no answers at all, as behind a mirror that holds files only, it ends with "No known vulnerabilities found". So it is
first asked about a package of which one has been known for years.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pip_audit  # noqa: F401 - where it is missing, that is no silence of the service

# CVE-2019-10906: a template gets out of the sandbox.
KNOWN_BAD = "jinja2==2.10"
NOT_FOUND_OUT = 75


def main(lock: str) -> int:
    """Audits a lock."""
    with tempfile.TemporaryDirectory() as folder:
        known_bad = Path(folder) / "requirements.txt"
        known_bad.write_text(f"{KNOWN_BAD}\n")
        if not any(each.get("vulns") for each in answers(str(known_bad))):
            say(f"NOT AUDITED: pip-audit finds nothing wrong with {KNOWN_BAD} either, so that its service has no")
            say(f"answers here. Nothing is known about the packages of {lock}.")
            return NOT_FOUND_OUT
    audited = answers(lock)
    for each in audited:
        for vulnerability in each.get("vulns", ()):
            fixed = ", ".join(vulnerability["fix_versions"]) or "nowhere yet"
            say(f"VULNERABLE: {each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}")
    if any(each.get("vulns") for each in audited):
        return 1
    unknown = [each["name"] for each in audited if "vulns" not in each]
    if unknown or not audited:
        say(f"NOT AUDITED: {', '.join(unknown) or lock}: the service has no answer.")
        return NOT_FOUND_OUT
    say(f"Nothing is known to be wrong with the {len(audited)} packages of {lock}.")
    return 0


def answers(file: str) -> list[dict[str, Any]]:
    """Returns what pip-audit says of each package of a file; none where it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", file, "--disable-pip", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - a command of ours
        [*command, "--format", "json", "--progress-spinner", "off"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    try:
        said: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        say(done.stderr.strip().rpartition("\n")[2])
        return []
    return said


def say(line: str) -> None:
    """Prints a line."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
