"""The root folders of CI come from the mirror that the machine itself uses; no mirror is named in the project."""

import runpy
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets_tests.support.programs import ROOT, git

# As apt answers on Debian, on Debian whose index was never read, and on Ubuntu.
DEBIAN = (
    "http://mirror.example/updates/ bookworm-security Debian-Security\nhttp://mirror.example/debian/ bookworm Debian\n"
)
UNREAD = "cdrom:[Debian]/ bookworm \nhttp://mirror.example/debian/ bookworm \n"
UBUNTU = "http://mirror.example/ubuntu/ noble Ubuntu\n"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """`mirror(answer, release)` is the mirror of a machine of that release whose apt gives that answer."""
    ours = runpy.run_path(str(ROOT / ".ci" / "oracle_mysql.py"))
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def found(answer: str, release: str) -> str:
        program = tmp_path / "apt-get"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}END\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setitem(ours["debian_mirror"].__globals__, "debian_release", lambda: release or None)
        result: str = ours["debian_mirror"]()
        return result

    return found


@pytest.mark.parametrize("answer", [DEBIAN, UNREAD, UBUNTU + DEBIAN], ids=["read", "unread", "beside Ubuntu"])
def test_the_mirror_is_that_of_apt(answer: str, mirror: Callable[[str, str], str]) -> None:
    assert mirror(answer, "bookworm") == "http://mirror.example/debian/"


def test_on_another_system_the_label_tells_debian(mirror: Callable[[str, str], str]) -> None:
    assert mirror(UBUNTU + DEBIAN, "") == "http://mirror.example/debian/"


def test_the_variable_goes_before_apt(mirror: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", "http://other.example/debian")
    assert mirror(DEBIAN, "bookworm") == "http://other.example/debian"


def test_without_any_the_sentence_says_what_to_set(mirror: Callable[[str, str], str]) -> None:
    with pytest.raises(RuntimeError, match="set DEBIAN_MIRROR to the address of one"):
        mirror(UBUNTU, "")


def test_no_mirror_of_packages_is_named_in_the_project() -> None:
    hosts = ["deb.debian." + "org", "archive.ubuntu." + "com", "files.pythonhosted." + "org", "pypi." + "org/simple"]
    for host in hosts:
        assert git("grep", "--files-with-matches", "--fixed-strings", host).stdout == ""
