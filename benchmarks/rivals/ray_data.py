"""Ray Data: `read_sql`, `map_batches`, `write_sql`, in a local Ray with a task for each core."""

import os
import tempfile
import time
from typing import Any

import numpy as np
import ray
import ray.data

from benchmarks.rivals.shared import BATCH_ROWS, WITHIN_HOUR, connect, loaded_scorer, report

OBJECT_STORE_BYTES = 512 * 2**20


def score(batch: dict[str, Any]) -> dict[str, Any]:
    """Scores a batch; the columns stand in the order in which the UPDATE takes them."""
    predictions = loaded_scorer().predictions(batch["values"].tolist())
    return {"prediction": np.array(predictions, dtype=object), "id": batch["id"]}


def main() -> None:
    """Measures and tells."""
    cores = os.cpu_count() or 1
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray.init(
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
            configure_logging=False,
            log_to_driver=False,
        )
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            started = time.perf_counter()
            # A share of the ids for each core: MySQL 9 has no MD5, by which Ray would divide them.
            items = ray.data.read_sql(
                f"SELECT id, `values` FROM items WHERE {WITHIN_HOUR}",
                connect,
                shard_keys=["id"],
                shard_hash_fn="ABS",
                override_num_blocks=cores,
            )
            scored = items.map_batches(score, batch_size=BATCH_ROWS, batch_format="numpy")
            scored.write_sql("UPDATE items SET prediction = %s WHERE id = %s", connect)
            seconds = time.perf_counter() - started
        finally:
            ray.shutdown()
    report(seconds=seconds, start_seconds=started - start)


if __name__ == "__main__":
    main()
