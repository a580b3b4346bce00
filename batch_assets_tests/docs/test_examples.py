"""The examples of the README and of the documentation run as they stand there, and print what stands there."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_assets_tests.support.instance import INSTANCE_OF_TESTS
from batch_assets_tests.support.pages import PAGES, README, ROOT, Block, blocks, expected_outputs, name_of, run_blocks
from batch_assets_tests.support.programs import find_program
from batch_assets_tests.support.servers import free_port

# Where the database, the API and what is beside them are, the test says.
SET_BY_THE_TEST = ("export MYSQL_", "export API_PORT", "export PORT")
GET_STARTED = ROOT / "docs" / "get-started.md"
# The guides go on from here.
STARTED = """batch-assets init-db >&2
printf '5.1,3.5,1.4,0.2\\n6.7,3.0,5.2,2.3\\n' | batch-assets register - --created-at 2026-11-01T05:30 >&2
"""


def _pages() -> Iterator[Any]:
    """Yields the pages with examples.

    One with SQL shows rows as the server hands them over, and MySQL orders the keys of JSON, which MariaDB does not.
    """
    for page in PAGES:
        languages = {block.language for block in blocks(page)}
        if any(block.command for block in blocks(page)):
            yield pytest.param(page, id=name_of(page), marks=[] if "sql" in languages else [pytest.mark.one_server])


@pytest.mark.slow
@pytest.mark.parametrize("page", list(_pages()))
def test_the_examples_of_a_page_run_and_print_what_it_shows(
    page: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "dagster.yaml").write_text(INSTANCE_OF_TESTS)
    before = [] if page in (README, GET_STARTED) else [Block("bash", "", STARTED)]
    left_out = [] if shutil.which("curl") else [block for block in blocks(page) if "curl" in block.text]
    examples = [*before, *(_as_tested(block, left_out) for block in blocks(page))]
    environment = {
        "DAGSTER_HOME": str(tmp_path),
        "API_PORT": str(free_port()),
        "API_KEY": "a key",
        "PORT": str(free_port()),
    }
    printed = run_blocks(examples, tmp_path, environment)
    for number, lines in expected_outputs(examples):
        position = 0
        # Three dots stand for what may differ.
        for part in (part for line in lines for part in re.split(r",? ?\.\.\.", line)):
            position = printed[number].find(part, position)
            assert position >= 0, f"{part!r} is not printed, or not in this order:\n{printed[number]}"
    if left_out:
        find_program("curl", "install it (on Debian: apt-get install curl) to have all examples run")


def _as_tested(block: Block, left_out: list[Block]) -> Block:
    lines = [line for line in block.text.splitlines(keepends=True) if not line.startswith(SET_BY_THE_TEST)]
    return replace(block, text="".join(lines), language="shell" if block in left_out else block.language)
