"""Scoring an hour: which of its items, under which lock, and how many of them may fail."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from batch_assets.database.connection.throttle import Throttle
from batch_assets.database.records.failed_items import FailedItems
from batch_assets.database.records.hour_counts import count_by_hour
from batch_assets.database.records.hour_lock import HourLock
from batch_assets.database.records.hour_models import HourModels
from batch_assets.database.schema.tables import PipelineTables, pipeline_tables
from batch_assets.database.slices.batch import Batch
from batch_assets.database.slices.batches import Batches
from batch_assets.database.slices.reflection import json_columns
from batch_assets.database.slices.table_slice import TableSlice
from batch_assets.errors import ThresholdError
from batch_assets.garbage import collecting_what_is_new
from batch_assets.hours import Hour
from batch_assets.inference.answer_forms import FORMS_AS_JSON
from batch_assets.inference.onnx_model import OnnxModel
from batch_assets.pipeline import Pipeline
from batch_assets.scoring.batches import Progress, score
from batch_assets.scoring.pace import Pace
from batch_assets.scoring.ray_workers import ray_workers
from batch_assets.scoring.workers import Workers, local_workers
from batch_assets.settings.retry import WHOLE_BATCH


@dataclass(frozen=True)
class HourlyScoring:
    """A run that scores hours.

    Args:
        engine: The database.
        pipeline: The table, attempts, thresholds, and what to do about an hour that another run holds.
        model: The model.
        mode: `partial`: what has no prediction is scored and written batch by batch; `whole_batch`: all items are
            scored, and published at once.
        run_id: The run.
        throttle: Has each transaction that writes wait for its turn.
        on_progress: Is told what a person who looks at the run should know.
    """

    engine: sa.Engine
    pipeline: Pipeline
    model: OnnxModel
    mode: str
    run_id: str
    throttle: Throttle
    on_progress: Callable[[str], None]

    def predictions(self, hour: Hour, raw_items: Batches) -> Batches:
        """Returns the predictions of an hour, which are made while they are stored.

        Args:
            hour: The hour.
            raw_items: Its items, with their key and values.

        Raises:
            HourBusyError: While they are stored: another run holds the hour.
            ThresholdError: While they are stored: more items failed than the settings allow.
            ModelError: While they are stored: the model does not fit the items.
        """
        progress, whole = Progress(), self.mode == WHOLE_BATCH
        names, retry, tables = self.pipeline.items, self.pipeline.retry, pipeline_tables(self.pipeline)
        paused_before = self.throttle.paused_seconds
        lock = HourLock(
            self.engine, tables, hour, self.run_id, wait=retry.wait_for_busy_hour, on_progress=self.on_progress
        )
        failed_items = FailedItems(self.engine, tables, hour, self.model.version, self.run_id)
        pace = None if whole else self._pace(tables)
        models = HourModels(self.engine, tables, hour, self.model.version, whole=whole)

        @contextmanager
        def scope() -> Iterator[None]:
            with lock.acquire(), collecting_what_is_new():
                failed_items.begin()
                models.begin()
                yield
                if not whole:
                    self._check_hour(hour, progress)

        def scored() -> Iterator[Batch]:
            chosen = raw_items if whole else raw_items.where(failed_items.to_try(retry.max_attempts))
            json_columns = self._json_columns()
            scored_batches = score(
                chosen,
                names,
                self.model,
                progress,
                sample_known=self.pipeline.model.sample_data_path is not None,
                failed_before=failed_items.before,
                json_columns=json_columns,
                workers=partial(self._workers, json_columns),
            )
            paced = pace.transactions(scored_batches) if pace else scored_batches
            # Whatever happens, nobody is left at work.
            with closing(scored_batches), closing(paced):
                for batch in paced:
                    yield _with_failed_as_null(batch) if whole else batch
                    self._check_count(hour, progress)
            if whole:
                self._check(hour, progress.failed, progress.scored + progress.failed, progress)

        def in_transaction(connection: sa.Connection, batch: Batch) -> None:
            lock.check(connection)
            failed_items.record(connection, batch)
            models.record(connection, batch)

        def metadata() -> dict[str, Any]:
            described = {
                "model": self.model.name,
                "model_version": self.model.version,
                "labels": list(self.model.labels),
                "retry": self.mode,
            }
            paused = self.throttle.paused_seconds - paused_before + (pace.paused_seconds if pace else 0)
            seen = {"slowdown": pace.slowdown} if pace and pace.slowdown else {}
            return {**described, **progress.metadata(), "paused_seconds": round(paused, 3), **seen}

        return Batches(
            scored,
            in_transaction=in_transaction,
            metadata=metadata,
            scope=scope,
            before_write=self.throttle.before_write,
            after_write=pace.after_write if pace else None,
            at_once=whole,
        )

    def _pace(self, tables: PipelineTables) -> Pace | None:
        """Returns the pace of an hour, if it has one: a whole batch is one transaction."""
        most = self.throttle.max_slowdown
        return None if most is None else Pace(self.engine, tables.items, most, self.on_progress)

    def _workers(self, json_columns: Collection[str]) -> AbstractContextManager[Workers]:
        """Returns those who score: threads of this process, or a cluster."""
        inference = self.pipeline.inference
        if inference.ray_address is not None:
            return ray_workers(inference, self.model, json_columns, self.on_progress)
        return nullcontext(local_workers(self.model, json_columns, inference.threads))

    def _json_columns(self) -> frozenset[str]:
        """Returns the columns of JSON, where it matters which ones they are."""
        if {output.form for output in self.model.outputs} <= FORMS_AS_JSON:
            return frozenset()
        return json_columns(self.engine, TableSlice(self.pipeline.items.name))

    def _check_count(self, hour: Hour, progress: Progress) -> None:
        """Ends early what can only end badly."""
        most = self.pipeline.retry.max_failed_items
        if most is not None and progress.failed > most:
            self._check(hour, progress.failed, progress.scored + progress.failed, progress)

    def _check_hour(self, hour: Hour, progress: Progress) -> None:
        """Counts the whole hour, of which a partial retry has seen a part."""
        retry = self.pipeline.retry
        if retry.max_failed_items is None and retry.max_failed_share is None:
            return
        for counts in count_by_hour(self.engine, pipeline_tables(self.pipeline), hour.start, hour.end):
            self._check(hour, counts.failed, counts.items, progress)

    def _check(self, hour: Hour, failed: int, items: int, progress: Progress) -> None:
        most, share = self.pipeline.retry.max_failed_items, self.pipeline.retry.max_failed_share
        exceeded = []
        if most is not None and failed > most:
            exceeded.append(f"BATCH_MAX_FAILED_ITEMS={most}")
        if share is not None and failed > share * items:
            exceeded.append(f"BATCH_MAX_FAILED_SHARE={share:g}")
        if exceeded:
            codes = ", ".join(f"{code} {count:,}" for code, count in progress.codes.most_common())
            written = "nothing of it was published" if self.mode == WHOLE_BATCH else "what could be scored was written"
            raise ThresholdError(
                f"{failed:,} of {items:,} items of the hour {hour.key} cannot be scored, more than "
                f"{' and '.join(exceeded)} allows{f' (in this run: {codes})' if codes else ''}; {written}. Fix the "
                "items or the model, then materialise the hour again."
            )


def _with_failed_as_null(batch: Batch) -> Batch:
    """Takes the old predictions off the items that can no longer be scored."""
    nulls = [None] * (len(batch.columns) - 2)
    failed: list[tuple[Any, ...]] = [(row.key, row.values, *nulls) for row in batch.failed]
    return replace(batch, rows=[*batch.rows, *failed])
