"""A round: an hour, the runs on it, the faults that hit them, and what is checked afterwards."""

import contextlib
import datetime
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pymysql

from batch_assets_tests.support.pipeline import assert_hour_adds_up, insert_items
from benchmarks.faults.campaign import Campaign, fingerprint_of, first_fault
from benchmarks.faults.plan import BAD, BAD_EVERY, HARMLESS, OLD, SERVICE_SHARE, STEPS, TOLERANCE, Fault, Plan
from benchmarks.faults.run import RUN_SECONDS, TOOK, Run
from benchmarks.faults.service import BAD_IN_ONE_FORM, Reader, Service, in_one_form

ATTEMPTS = 5


class Round:
    """An hour, the runs on it and the faults that hit them."""

    def __init__(self, campaign: Campaign, plan: Plan) -> None:
        self.campaign, self.plan, self.sql, self.tally = campaign, plan, campaign.sql, campaign.tally
        self.start, self.end = str(plan.start), str(plan.start + datetime.timedelta(hours=1))
        self.key = plan.start.strftime("%Y-%m-%d-%H:%M")
        self.draw = random.Random(f"{campaign.seed}/{plan.number}/round")
        self.runs: list[Run] = []
        self.threads: list[threading.Thread] = []
        self.service = self._fill()

    def play(self) -> None:
        """Lets the faults hit, checks the hour, completes it and checks it again."""
        self.tally.modes[self.plan.mode] += 1
        with contextlib.ExitStack() as stack:
            stack.callback(self._end_all)
            reader = stack.enter_context(self._reader()) if self.plan.mode == "whole_batch" else None
            self._start()
            for fault in self.plan.faults:
                self._hit(fault)
            for thread in self.threads:
                thread.join()
            for run in self.runs:
                self._note_end(run)
            self.check(completed=False)
            self._complete()
        self.check(completed=True)
        self.campaign.fingerprints[self.plan] = fingerprint_of(self.sql, self.plan)
        self.tally.numbers.update(items=len(self.service.texts), service_commits=self.service.commits)
        self.tally.numbers.update(service_disturbed=self.service.disturbed)
        if reader:
            self.tally.numbers.update(looks=reader.looks, looks_disturbed=reader.disturbed)

    def _fill(self) -> Service:
        texts = self.draw.choices(self.campaign.good, k=self.plan.items)
        for position in range(0, len(texts), BAD_EVERY):
            texts[position] = self.draw.choice(BAD)
        middle = str(self.plan.start + datetime.timedelta(minutes=30))
        ids = insert_items(self.sql, texts, middle)
        within = "created_datetime >= %s AND created_datetime < %s"
        bad = [key for key, text in zip(ids, texts, strict=True) if text in BAD]
        self.strictly_bad = sum(key % SERVICE_SHARE != 0 for key in bad)
        self.last = ids[-1]
        if self.plan.mode == "whole_batch":
            self.sql(f"UPDATE items SET prediction = %s WHERE {within}", OLD, self.start, self.end)
            self.sql(f"UPDATE items SET prediction = NULL WHERE id IN ({', '.join(map(str, bad))})")
        elif self.plan.scored:
            for text in self.campaign.good:
                prediction = json.dumps(self.campaign.expected[in_one_form(text)].tolist())
                some = [key for key, own in zip(ids, texts, strict=True) if own == text]
                some = some[: int(len(some) * self.plan.scored)]
                if some:
                    self.sql(f"UPDATE items SET prediction = %s WHERE id IN ({', '.join(map(str, some))})", prediction)
        return Service(self.sql, self.plan.start, dict(zip(ids, texts, strict=True)), self.campaign.good)

    def _reader(self) -> Reader:
        return Reader(self.sql, self.plan, self.last, self.strictly_bad, self._report)

    def _report(self, what: str, ids: Sequence[int] = ()) -> None:
        self.campaign.report(self.plan, what, ids)

    # Runs

    def _start(self, *, busy: str = "") -> Run:
        number = self.tally.numbers["runs_started"]
        self.tally.numbers["runs_started"] += 1
        environment = self.campaign.environment | {"BATCH_BUSY_HOUR": busy or self.plan.busy}
        log = self.campaign.home / f"run-{number}.log"
        run = Run(environment, self.key, self.plan.mode, log, command_line=self.plan.command_line)
        self.runs.append(run)
        return run

    def _running(self) -> Run:
        """Returns a run that is alive; a new one, with something to do, if all have ended."""
        for run in self.runs:
            if run.status is None:
                return run
        for run in self.runs:
            self._note_end(run)
        self._give_work()
        return self._start()

    def _give_work(self) -> None:
        """Takes predictions away, as whoever wants them anew does, so that another run has something to do."""
        within = "created_datetime >= %s AND created_datetime < %s"
        if self.plan.mode == "whole_batch":
            statement = f"UPDATE items SET prediction = %s WHERE prediction IS NOT NULL AND {within}"
            self.sql(statement, OLD, self.start, self.end)
        else:
            self.sql(f"UPDATE items SET prediction = NULL WHERE id %% 2 = 0 AND {within}", self.start, self.end)

    def _note_end(self, run: Run) -> None:
        """Waits for the end of a run, and checks that it says the truth about itself."""
        if run.noted:
            return
        run.noted = True
        if not run.wait():
            self._report(f"a run has not ended within {RUN_SECONDS} s ({run.step}): {run.output[-2000:]}")
            run.kill()
            run.wait()
        self.tally.runs[run.outcome] += 1
        for kind in set(run.hits):
            self.tally.outcomes[kind][run.outcome] += 1
        said = " - RUN_SUCCESS - " in run.output
        if (run.outcome == "green") != said and run.outcome != "killed":
            self._report(f"a run ended with status {run.status} and said {'' if said else 'not '}that it succeeded")
        if run.outcome == "red" and not self._may_be_red(run):
            self._report(f"a run ended red, hit by {run.hits or 'nothing'}: {first_fault(run.output)}")
        if run.outcome == "green":
            for step, number, unit in TOOK.findall(run.output):
                self.campaign.usual[step].append(float(number) / (1000 if unit == "ms" else 1))

    def _may_be_red(self, run: Run) -> bool:
        if set(run.hits) - HARMLESS:
            return True
        others = [other.run_id for other in self.runs if other is not run]
        return self.plan.busy == "fail" and any(other and other in run.output for other in others)

    def _complete(self) -> None:
        """The healthy run at the end."""
        run = self._start(busy="wait")
        self._note_end(run)
        if run.outcome != "green":
            self._report(f"the healthy run at the end is {run.outcome}: {first_fault(run.output)}")

    def _end_all(self) -> None:
        for run in self.runs:
            if run.status is None:
                run.kill()
                run.wait()

    # Faults

    def _hit(self, fault: Fault) -> None:
        """Lets a fault hit a run; tries again, earlier in the step, where the run has ended before."""
        strike: Callable[[Run], bool] = getattr(self, f"_{fault.kind}")
        part = fault.part
        for _ in range(ATTEMPTS):
            run = self._running()
            if self._await_moment(run, fault.step, part):
                step, doing = run.step, self._doing()
                if strike(run):
                    self.tally.faults[fault.kind] += 1
                    self.tally.where[f"{step}: {doing}"] += 1
                    return
            self.tally.missed[fault.kind] += 1
            part /= 2

    def _await_moment(self, run: Run, step: str, part: float) -> bool:
        """Waits until a part of a step's usual duration has passed; whether the run is alive then."""
        order = list(STEPS)
        while run.status is None and order.index(run.step) < order.index(step):
            time.sleep(0.005)
        # The second run of an hour costs less than the first: a slow one would put every fault behind its end.
        end = time.monotonic() + part * statistics.median(self.campaign.usual[step][-20:])
        while run.status is None and time.monotonic() < end:
            time.sleep(0.005)
        return run.status is None

    def _doing(self) -> str:
        statements = [statement for _, statement in self.campaign.connections() if statement]
        return statements[0].split(maxsplit=1)[0].strip("(").upper() if statements else "no statement"

    def _strike_all(self, kind: str) -> None:
        """Notes a fault with every run that it concerns: rivals share the server and the hour."""
        for run in self.runs:
            if run.status is None or not run.noted:
                run.hits.append(kind)

    def _kill_worker(self, run: Run) -> bool:
        run.kill()
        run.wait()
        if run.status != -9:
            return False
        run.hits.append("kill_worker")
        return True

    def _cut_connection(self, run: Run) -> bool:
        return self._kill(run, "CONNECTION", "cut_connection")

    def _kill_query(self, run: Run) -> bool:
        return self._kill(run, "QUERY", "kill_query")

    def _kill(self, run: Run, what: str, kind: str) -> bool:
        while run.status is None:
            found = [key for key, statement in self.campaign.connections() if statement or what == "CONNECTION"]
            if found:
                self._strike_all(kind)
                if self.campaign.kill(what, self.draw.choice(found)):
                    return True
        return False

    def _restart_server(self, run: Run, *, kill: bool = False) -> bool:
        kind = "kill_server" if kill else "restart_server"
        self._strike_all(kind)
        self.campaign.forget_connection()
        self.campaign.private.stop(kill)
        hit = run.status != 0
        time.sleep(self.draw.random() * 0.5)
        self.campaign.private.start()
        return hit

    def _kill_server(self, run: Run) -> bool:
        return self._restart_server(run, kill=True)

    def _service(self, run: Run) -> bool:
        self._strike_all("service")
        self._meanwhile(self.service.burst, random.Random(self.draw.random()), 0.5 + self.draw.random())
        return run.status is None

    def _rival(self, run: Run) -> bool:
        rival = self._start()
        for each in (run, rival):
            each.hits.append("rival")
        return run.status is None

    def _row_locks(self, run: Run) -> bool:
        self._strike_all("row_locks")
        keys = sorted(self.draw.sample(sorted(self.service.texts), 40))
        self._meanwhile(self._hold_locks, keys, 0.2 + self.draw.random() * 0.6)
        return run.status is None

    def _hold_locks(self, keys: list[int], seconds: float) -> None:
        """Locks rows from behind, against the order in which a run updates them, which may end in a deadlock."""
        try:
            with contextlib.closing(self.campaign.connect()) as connection:
                connection.begin()
                cursor = connection.cursor()
                for part in (keys[20:], keys[:20]):
                    cursor.execute(f"SELECT id FROM items WHERE id IN ({', '.join(map(str, part))}) FOR UPDATE")
                    time.sleep(seconds / 2)
        except pymysql.err.MySQLError:
            self.tally.numbers["locks_disturbed"] += 1  # the server is away, or chose us to end a deadlock

    def _read_only(self, run: Run) -> bool:
        self._strike_all("read_only")
        self.sql("SET GLOBAL read_only = ON")
        hit = run.status is None
        time.sleep(0.2 + self.draw.random() * 0.6)
        self.sql("SET GLOBAL read_only = OFF")
        return hit

    def _meanwhile(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self.threads.append(thread)
        thread.start()

    # Checks

    def check(self, *, completed: bool) -> None:
        """Checks the hour: that nothing is lost, doubled, stale or wrong; and if completed, that all is done."""
        lost = self.service.settle()
        if lost:
            self._report("items are neither as the service wrote them last nor as before", lost)
        rows = self.sql(
            "SELECT id, `values`, prediction FROM items WHERE created_datetime >= %s AND created_datetime < %s",
            *(self.start, self.end),
        )
        failed = {key for (key,) in self.sql("SELECT item_id FROM failed_items WHERE hour = %s", self.start)}
        values = {key: in_one_form(text) for key, text, _ in rows}
        predictions = {key: orjson.loads(text) for key, _, text in rows if text is not None}
        self._check_values(values)
        self._check_predictions(values, predictions)
        self._check_failed(values, predictions, failed, completed=completed)
        if completed:
            self._check_completed(values, predictions, failed)

    def _check_values(self, values: dict[int, str]) -> None:
        wanted = {key: in_one_form(text) for key, text in self.service.texts.items()}
        for what, ids in {
            "items are lost": wanted.keys() - values.keys(),
            "deleted items are back": values.keys() & self.service.deleted,
            "items are there that nobody wrote": values.keys() - wanted.keys() - self.service.deleted,
            "values are not as committed": [key for key in values if values[key] != wanted.get(key, values[key])],
        }.items():
            if ids:
                self._report(what, list(ids))

    def _check_predictions(self, values: dict[int, str], predictions: dict[int, Any]) -> None:
        old_one = json.loads(OLD)
        old = {key for key, prediction in predictions.items() if prediction == old_one}
        wrong = [key for key in predictions.keys() - old if not self._is_right(values[key], predictions[key])]
        if wrong:
            self._report("predictions do not belong to the values", wrong)
        if old and len(old) < len(predictions):
            self._report("old predictions stand beside new ones", list(old))
        if old and self.plan.mode != "whole_batch":
            self._report("old predictions from nowhere", list(old))

    def _is_right(self, values: str, prediction: Any) -> bool:
        wanted = self.campaign.expected.get(values)
        if wanted is None or not isinstance(prediction, list) or len(prediction) != len(wanted):
            return False
        return bool(max(abs(a - b) for a, b in zip(prediction, wanted, strict=True)) <= TOLERANCE)

    def _check_failed(
        self, values: dict[int, str], predictions: dict[int, Any], failed: set[int], *, completed: bool
    ) -> None:
        bad = {key for key, value in values.items() if value in BAD_IN_ONE_FORM}
        # The service knows nothing of failed_items: the next run takes off what it has corrected or deleted.
        excused = set() if completed else self.service.corrected | self.service.deleted
        for what, ids in {
            "items have failed and have a prediction": failed & predictions.keys(),
            "failed items are not there": failed - values.keys() - excused,
            "good items have failed": (failed & values.keys()) - bad - excused,
        }.items():
            if ids:
                self._report(what, list(ids))
        here = failed & values.keys()
        pending = values.keys() - predictions.keys() - here
        if len(values) != len(predictions) + len(here) + len(pending):
            self._report(
                f"{len(values)} items are {len(predictions)} predicted, {len(here)} failed, {len(pending)} pending"
            )

    def _check_completed(self, values: dict[int, str], predictions: dict[int, Any], failed: set[int]) -> None:
        bad = {key for key, value in values.items() if value in BAD_IN_ONE_FORM}
        old = [key for key, prediction in predictions.items() if prediction == json.loads(OLD)]
        for what, ids in {
            "items are pending after the healthy run": values.keys() - predictions.keys() - failed,
            "bad items have not failed": bad - failed,
            "old predictions stand after the healthy run": old,
        }.items():
            if ids:
                self._report(what, list(ids))
        try:
            counts = assert_hour_adds_up(self.sql, self.start, self.end)
        except AssertionError as error:
            self._report(f"the hour does not add up: {error}")
            return
        names = "items, predicted, failed, pending"
        summary = self.sql(f"SELECT {names} FROM run_summary WHERE hour = %s", self.start)
        if summary != [tuple(counts)]:
            self._report(f"the summary has {summary}, the tables {tuple(counts)}")
