"""The pages of the documentation, and their examples as scripts.

What a block of code is, its language says:

- `bash`, `python` and `sql` are run, all of a page in their order;
- one with a title is the file of that name, whatever its language;
- `text` is what the block before it prints, where that one is run: all of its lines in this order, `...` for what may
  differ;
- `shell` needs what a test cannot have, and is only looked at for the names in it.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from batch_assets_tests.support.programs import find_program

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md")))
SECONDS = 270

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_COMMANDS = {
    "bash": "{text}",
    "python": "python - <<'END_OF_EXAMPLE'\n{text}END_OF_EXAMPLE",
    "sql": "python -m batch_assets_tests.support.run_sql <<'END_OF_EXAMPLE'\n{text}END_OF_EXAMPLE",
}
_OUTPUT_OF = "--- output of block "


@dataclass(frozen=True)
class Block:
    """A block of code on a page: its language, the name of the file that it is, if it is one, and the text."""

    language: str
    title: str
    text: str

    @property
    def command(self) -> str | None:
        """What runs the block in a shell, None for one that is only shown."""
        if self.title:
            return f"cat > {self.title} <<'END_OF_EXAMPLE'\n{self.text}END_OF_EXAMPLE"
        command = _COMMANDS.get(self.language)
        return command.format(text=self.text) if command else None


def name_of(page: Path) -> str:
    """Returns the path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Returns the blocks of code of a page."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text("utf-8"))]


def expected_outputs(page_blocks: list[Block]) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each block whose output is shown, with the lines that it must print."""
    for number, (block, following) in enumerate(pairwise(page_blocks)):
        if block.command and following.language == "text":
            yield number, following.text.splitlines()


def run_blocks(page_blocks: Iterable[Block], folder: Path, environment: Mapping[str, str]) -> dict[int, str]:
    """Runs the blocks of a page one after the other in one shell, and ends all that they have started.

    Args:
        page_blocks: The blocks.
        folder: The working folder. It gets what is printed too.
        environment: What is set beside what the tests have set.

    Returns:
        What each block has printed to its standard output, by its number.
    """
    script = [
        line
        for number, block in enumerate(page_blocks)
        if block.command
        for line in (f"echo '{_OUTPUT_OF}{number}'", block.command)
    ]
    bash = find_program("bash", "install bash")
    output, errors = folder / "output.log", folder / "errors.log"
    # Into files: a process in the background would keep a pipe open.
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [bash, "-euo", "pipefail", "-c", "\n".join(script)],
            cwd=folder,
            env={**_environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of the group is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    printed = output.read_text("utf-8")
    assert status == 0, f"exit status {status}\n{printed}\n{errors.read_text('utf-8')}"
    parts = re.split(rf"^{_OUTPUT_OF}(\d+)\n", printed, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def _environment() -> dict[str, str]:
    """The environment of the tests, with the commands of the package first on the path."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)}
