"""The programs that tests use beside Python, and what happens where one is missing."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


class MissingProgramError(RuntimeError):
    """A test needs a program that is not on this machine: it is skipped with this sentence, and in CI it fails.

    Args:
        what: The program, as in "this needs curl".
        advice: How to get it.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"this needs {self.what}: {self.advice}"


def find_program(name: str, advice: str, path: str | None = None) -> str:
    """Returns the path of a program.

    Args:
        name: The program.
        advice: How to get it where it is missing.
        path: The folders to look in; without it those of PATH.

    Raises:
        MissingProgramError: It is not there.
    """
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingProgramError(name, advice)
    return found


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of git in the checkout and returns how it ended.

    Raises:
        MissingProgramError: There is no git, or this is a copy of the files that git knows nothing of.
    """
    program = find_program("git", "install git")
    if not (ROOT / ".git").exists():
        raise MissingProgramError("a clone by git", "clone the project in place of unpacking a copy")
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
