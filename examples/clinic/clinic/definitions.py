"""What `dagster dev -m clinic.definitions` loads: the pipelines that the folder `defs` declares."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Returns what is declared."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
