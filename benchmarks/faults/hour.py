"""The hour of a round for one pipeline: its runs, and what must stand in the tables afterwards."""

import collections
import datetime
import json
from collections.abc import Collection, Sequence
from typing import Any

import orjson

from batch_assets_tests.support.pipeline import LABELS, Counts, assert_hour_adds_up
from batch_assets_tests.support.servers import Rows
from benchmarks.faults.campaign import Campaign, first_fault
from benchmarks.faults.pipelines import ScoredPipeline
from benchmarks.faults.plan import HARMLESS, OLD, TOLERANCE, Plan
from benchmarks.faults.run import RUN_SECONDS, TOOK, Run
from benchmarks.faults.service import Reader, Service, in_one_form

_WITHIN = "created_datetime >= %s AND created_datetime < %s"
# What stands in hour_requests from the beginning. No run has anything to do with it.
_REQUEST = (2, "late items", "3 pending")


class PipelineHour:
    """The hour of a round for one pipeline: its runs, and what must stand in the tables afterwards.

    Args:
        campaign: The campaign.
        plan: The round.
        pipeline: The pipeline.
        mode: Its retry mode.
        service: The service, with the items that it has written.
    """

    def __init__(self, campaign: Campaign, plan: Plan, pipeline: ScoredPipeline, mode: str, service: Service) -> None:
        self.campaign, self.plan, self.pipeline, self.mode, self.service = campaign, plan, pipeline, mode, service
        self.runs: list[Run] = []
        # Whether a run has ended well since there was something to do.
        self.done = False
        self._sql, self._tally = campaign.sql, campaign.tally
        self._start, self._end = str(plan.start), str(plan.start + datetime.timedelta(hours=1))
        self._bad = [key for key, text in service.texts.items() if in_one_form(text) in pipeline.bad]
        self._strictly_bad = sum(not service.owns(key) for key in self._bad)
        self._fill()

    def _fill(self) -> None:
        column, texts = self.pipeline.column, self.service.texts
        if self.mode == "whole_batch":
            self._sql(f"UPDATE items SET {column} = %s WHERE {_WITHIN}", OLD, self._start, self._end)
            self._sql(f"UPDATE items SET {column} = NULL WHERE id IN ({', '.join(map(str, self._bad))})")
        elif self.plan.scored:
            for text, answer in self.pipeline.answers.items():
                some = [key for key, own in texts.items() if own == text]
                if some := some[: int(len(some) * self.plan.scored)]:
                    ids = ", ".join(map(str, some))
                    self._sql(f"UPDATE items SET {column} = %s WHERE id IN ({ids})", json.dumps(answer.tolist()))
        self._sql(
            "INSERT INTO hour_requests (pipeline, hour, requests, reason, left_over, requested_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            *(self.pipeline.name, self._start, *_REQUEST, self._start),
        )

    def reader(self) -> Reader:
        """Returns somebody who reads the predictions of the pipeline."""
        return Reader(self._sql, self.pipeline.column, self.service, self._strictly_bad, self.report)

    def report(self, what: str, ids: Sequence[int] = ()) -> None:
        """Notes a violation."""
        self.campaign.report(self.plan, self.pipeline.name, what, ids)

    def fingerprint(self) -> dict[str, Rows]:
        """Returns by table what changes with anything that the pipeline has written."""
        return self.campaign.fingerprint(self.plan, self.pipeline)

    # Runs

    def start(self, *, busy: str = "") -> Run:
        """Starts a run."""
        number = self._tally.numbers["runs_started"]
        self._tally.numbers["runs_started"] += 1
        environment = self.campaign.environments[self.pipeline.name] | {"BATCH_BUSY_HOUR": busy or self.plan.busy}
        run = Run(
            self.pipeline.job,
            environment,
            self.plan.start.strftime("%Y-%m-%d-%H:%M"),
            self.mode,
            self.campaign.home / f"run-{number}.log",
            command_line=self.plan.command_line,
        )
        self.runs.append(run)
        return run

    def running(self) -> Run:
        """Returns a run that is alive; a new one, with something to do, if all have ended."""
        for run in self.runs:
            if run.status is None:
                return run
        self.await_ends()
        if self.runs:
            self._give_work()
        return self.start()

    def _give_work(self) -> None:
        """Takes predictions away, as whoever wants them anew does, so that another run has something to do."""
        self.done = False
        column = self.pipeline.column
        if self.mode == "whole_batch":
            statement = f"UPDATE items SET {column} = %s WHERE {column} IS NOT NULL AND {_WITHIN}"
            self.campaign.change(statement, OLD, self._start, self._end)
        else:
            statement = f"UPDATE items SET {column} = NULL WHERE id %% 2 = 0 AND {_WITHIN}"
            self.campaign.change(statement, self._start, self._end)

    def await_ends(self) -> None:
        """Waits for the end of each run, and checks that it says the truth about itself."""
        for run in self.runs:
            if not run.noted:
                run.noted = True
                self._note_end(run)

    def _note_end(self, run: Run) -> None:
        if not run.wait():
            self.report(f"a run has not ended within {RUN_SECONDS} s ({run.step}): {run.output[-2000:]}")
            run.kill()
            run.wait()
        output = run.output
        self._tally.note_end(run.outcome, self.pipeline.name, run.hits)
        self._tally.numbers["transient_retries"] += output.count(" Tried again in ")
        said = " - RUN_SUCCESS - " in output
        if (run.outcome == "green") != said and run.outcome != "killed":
            self.report(f"a run ended with status {run.status} and said {'' if said else 'not '}that it succeeded")
        if run.outcome == "red" and not self._may_be_red(run):
            self.report(f"a run ended red, hit by {run.hits or 'nothing'}: {first_fault(output)}")
        if "which holds the hour" in output and len(self.runs) == 1:
            self.report("a run waited for its hour, which no other run of its pipeline has held")
        if run.outcome == "green":
            self.done = True
            for step, number, unit in TOOK.findall(output):
                self.campaign.usual[step].append(float(number) / (1000 if unit == "ms" else 1))

    def _may_be_red(self, run: Run) -> bool:
        if set(run.hits) - HARMLESS:
            return True
        if self.plan.busy != "fail":
            return False
        output = run.output
        others = [other.run_id for other in self.runs if other is not run]
        return any(other and other in output for other in others)

    def complete(self) -> None:
        """Has a healthy run score what is left."""
        run = self.start(busy="wait")
        self.await_ends()
        if run.outcome != "green":
            self.report(f"the healthy run at the end is {run.outcome}: {first_fault(run.output)}")

    def end_all(self) -> None:
        """Ends the runs that are alive."""
        for run in self.runs:
            if run.status is None:
                run.kill()
                run.wait()

    # Checks

    def check(self, values: dict[int, str], *, completed: bool) -> None:
        """Checks that nothing is stale or wrong; and if completed, that all is done.

        Args:
            values: The values of the items there are.
            completed: Whether a healthy run has ended since anything has changed.
        """
        column, name = self.pipeline.column, self.pipeline.name
        rows = self._sql(f"SELECT id, {column} FROM items WHERE {_WITHIN}", self._start, self._end)
        predictions = {key: orjson.loads(text) for key, text in rows if text is not None}
        recorded = "SELECT item_id FROM failed_items WHERE pipeline = %s AND hour = %s"
        failed = {key for (key,) in self._sql(recorded, name, self._start)}
        self._check_predictions(values, predictions)
        self._check_failed(values, predictions, failed, completed=completed)
        self._check_owner(completed=completed)
        if self.done:
            self._check_done(values, predictions, failed)
        if completed:
            self._check_completed(values, predictions, failed)
        # If the service has deleted a failed item, its row in failed_items stays until the next run.
        if completed or not self.service.has_written:
            counts = self._counts()
            if counts and (completed or self.done):
                self._check_summary(counts, predictions)

    def _report_any(self, found: dict[str, Collection[int]]) -> None:
        for what, ids in found.items():
            if ids:
                self.report(what, list(ids))

    def _check_predictions(self, values: dict[int, str], predictions: dict[int, Any]) -> None:
        old = _old(predictions)
        wrong = [key for key in predictions.keys() - old if not self._is_right(values[key], predictions[key])]
        self._report_any({"predictions do not belong to the values": wrong})
        if len(old) < len(predictions):
            self._report_any({"old predictions stand beside new ones": old})
        if self.mode != "whole_batch":
            self._report_any({"old predictions from nowhere": old})

    def _is_right(self, values: str, prediction: Any) -> bool:
        wanted = self.pipeline.answers.get(values)
        if wanted is None or not isinstance(prediction, list) or len(prediction) != len(wanted):
            return False
        return bool(max(abs(a - b) for a, b in zip(prediction, wanted, strict=True)) <= TOLERANCE)

    def _check_failed(
        self, values: dict[int, str], predictions: dict[int, Any], failed: set[int], *, completed: bool
    ) -> None:
        bad = {key for key, value in values.items() if value in self.pipeline.bad}
        # The service knows nothing of failed_items: the next run takes off what it has corrected or deleted.
        excused = set() if completed else self.service.corrected | self.service.deleted
        here = failed & values.keys()
        self._report_any(
            {
                "items have failed and have a prediction": failed & predictions.keys(),
                "failed items are not there": failed - values.keys() - excused,
                "good items have failed": here - bad - excused,
            }
        )

    def _check_owner(self, *, completed: bool) -> None:
        """Checks that what is recorded of the hour is of this pipeline's runs and model."""
        where = "WHERE pipeline = %s AND hour = %s"
        parameters = (self.pipeline.name, self._start)
        own_runs, own_versions = {run.run_id for run in self.runs}, {self.pipeline.model_version, None}
        for table in ("failed_items", "run_summary"):
            found = self._sql(f"SELECT DISTINCT run_id, model_version FROM {table} {where}", *parameters)
            for run_id, version in found:
                if run_id not in own_runs or version not in own_versions:
                    self.report(f"{table} has rows of the run {run_id} and the model {version}, which are another's")
        locks = {run_id for (run_id,) in self._sql(f"SELECT run_id FROM hour_locks {where}", *parameters)}
        if completed and locks:
            self.report(f"the hour is held by {locks} after the healthy run")
        elif locks - own_runs:
            self.report(f"the hour is held by {locks - own_runs}, which is no run of this pipeline")
        request = self._sql(f"SELECT requests, reason, left_over FROM hour_requests {where}", *parameters)
        if request != [_REQUEST]:
            self.report(f"the request of the hour has become {request}")

    def _check_done(self, values: dict[int, str], predictions: dict[int, Any], failed: set[int]) -> None:
        """After a run that says it is done, what the service has not touched is."""
        pending = values.keys() - predictions.keys() - failed
        self._report_any(
            {
                "items are pending after a run that ended well": [k for k in pending if not self.service.owns(k)],
                "old predictions stand after a run that ended well": _old(predictions),
            }
        )
        summed_up = "SELECT items - predicted - failed - pending FROM run_summary WHERE pipeline = %s AND hour = %s"
        if (left := self._sql(summed_up, self.pipeline.name, self._start)) != [(0,)]:
            self.report(f"after a run that ended well, what the summary leaves out is {left}")

    def _check_completed(self, values: dict[int, str], predictions: dict[int, Any], failed: set[int]) -> None:
        bad = {key for key, value in values.items() if value in self.pipeline.bad}
        self._report_any(
            {
                "items are pending after the healthy run": values.keys() - predictions.keys() - failed,
                "bad items have not failed": bad - failed,
                "old predictions stand after the healthy run": _old(predictions),
            }
        )

    def _counts(self) -> Counts | None:
        """Counts the items of the hour by outcome in SQL; None if they do not add up, which it reports."""
        try:
            return assert_hour_adds_up(self._sql, self._start, self._end, self.pipeline.name, self.pipeline.column)
        except AssertionError as error:
            self.report(f"the hour does not add up: {error}")
            return None

    def _check_summary(self, counts: Counts, predictions: dict[int, Any]) -> None:
        """Checks that the summary says what stands in the tables, and counts this pipeline's labels."""
        columns = "items, predicted, failed, pending, label_counts"
        statement = f"SELECT {columns} FROM run_summary WHERE pipeline = %s AND hour = %s"
        rows = self._sql(statement, self.pipeline.name, self._start)
        if [tuple(row[:4]) for row in rows] != [tuple(counts)]:
            self.report(f"the summary has {rows}, the tables {tuple(counts)}")
            return
        labels = collections.Counter(LABELS[prediction.index(max(prediction))] for prediction in predictions.values())
        said = {label: count for label, count in json.loads(rows[0][4]).items() if count}
        if said != labels:
            self.report(f"the summary counts {said}, the predictions are {dict(labels)}")


def _old(predictions: dict[int, Any]) -> set[int]:
    old = json.loads(OLD)
    return {key for key, prediction in predictions.items() if prediction == old}
