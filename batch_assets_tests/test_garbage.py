"""What the collector of garbage leaves alone, in processes of their own: it is one for all."""

import subprocess
import sys


def printed(program: str) -> str:
    return subprocess.check_output([sys.executable, "-c", program], encoding="utf-8", timeout=120).strip()


def test_what_was_there_is_left_alone_for_as_long_as_batches_come() -> None:
    program = """
import gc
from batch_assets.garbage import collecting_what_is_new
with collecting_what_is_new():
    print(gc.get_freeze_count() > 0, end=" ")
print(gc.get_freeze_count())
"""
    assert printed(program) == "True 0"


def test_imports_are_left_alone_for_good() -> None:
    program = """
import gc
from batch_assets.garbage import collecting_what_is_new, freeze_imports
freeze_imports()
with collecting_what_is_new():
    pass
print(gc.get_freeze_count() > 0)
"""
    assert printed(program) == "True"
