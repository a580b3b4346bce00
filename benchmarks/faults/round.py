"""A round: an hour, the runs of each pipeline on it, the faults that hit them, and what is checked afterwards."""

import contextlib
import datetime
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pymysql

from batch_assets_tests.support.pipeline import insert_items
from benchmarks.faults.campaign import ALL, Campaign, changed_tables
from benchmarks.faults.hour import PipelineHour
from benchmarks.faults.plan import BAD, BAD_EVERY, STEPS, Fault, Plan
from benchmarks.faults.run import Run
from benchmarks.faults.service import Service, in_one_form

ATTEMPTS = 5


class Round:
    """An hour, the runs of each pipeline on it and the faults that hit them."""

    def __init__(self, campaign: Campaign, plan: Plan) -> None:
        self.campaign, self.plan, self.sql, self.tally = campaign, plan, campaign.sql, campaign.tally
        self.draw = random.Random(f"{campaign.seed}/{plan.number}/round")
        self.threads: list[threading.Thread] = []
        self.service = self._fill()
        self.hours = [
            PipelineHour(campaign, plan, pipeline, mode, self.service)
            for pipeline, mode in zip(campaign.pipelines, plan.modes, strict=True)
        ]

    def play(self) -> None:
        """Lets the faults hit, checks the hour, completes it and checks it again."""
        self.tally.modes.update(self.plan.modes)
        readers = [hour.reader() for hour in self.hours if hour.mode == "whole_batch"]
        with contextlib.ExitStack() as stack:
            for hour in self.hours:
                stack.callback(hour.end_all)
            for reader in readers:
                stack.enter_context(reader)
            for hour in self.hours:
                hour.start()
            for fault in self.plan.faults:
                self._hit(fault, beside=True)
            self._await_ends()
            self.check(completed=False)
            self._complete()
        self.check(completed=True)
        for hour in self.hours:
            self.campaign.fingerprints[self.plan, hour.pipeline.name] = hour.fingerprint()
        self.tally.numbers.update(items=len(self.service.texts), service_commits=self.service.commits)
        self.tally.numbers.update(service_disturbed=self.service.disturbed)
        for reader in readers:
            self.tally.numbers.update(looks=reader.looks, looks_disturbed=reader.disturbed)

    def _fill(self) -> Service:
        texts = self.draw.choices(self.campaign.good, k=self.plan.items)
        for position in range(0, len(texts), BAD_EVERY):
            texts[position] = self.draw.choice(BAD)
        ids = insert_items(self.sql, texts, str(self.plan.start + datetime.timedelta(minutes=30)))
        columns = [pipeline.column for pipeline in self.campaign.pipelines]
        return Service(self.sql, self.plan.start, dict(zip(ids, texts, strict=True)), self.campaign.good, columns)

    def _await_ends(self) -> None:
        for thread in self.threads:
            thread.join()
        for hour in self.hours:
            hour.await_ends()

    def _complete(self) -> None:
        """Has a healthy run of each pipeline score what is left, while the others are at rest.

        Where a fault is planned for that, it hits the last pipeline before.
        """
        alone = self.plan.alone
        last = self.hours[alone.pipeline if alone else -1]
        for hour in [*(hour for hour in self.hours if hour is not last), last]:
            with self._others_unchanged(hour):
                if alone and hour is last:
                    self._hit(alone, beside=False)
                    self._await_ends()
                    hour.check(self._values(), completed=False)
                hour.complete()

    @contextlib.contextmanager
    def _others_unchanged(self, hour: PipelineHour) -> Iterator[None]:
        """Checks that nothing changes of the pipelines that are at rest, whatever becomes of the runs of one."""
        before = {other: other.fingerprint() for other in self.hours if other is not hour}
        yield
        for other, fingerprint in before.items():
            if changed := changed_tables(fingerprint, other.fingerprint()):
                other.report(f"it was at rest, and the runs of {hour.pipeline.name} have changed {changed}")

    # Faults

    def _hit(self, fault: Fault, *, beside: bool) -> None:
        """Lets a fault hit a run; tries again, earlier in the step, where the run has ended before.

        Args:
            fault: The fault.
            beside: Whether the other pipelines are to have a run on the way.
        """
        hour = self.hours[fault.pipeline]
        strike: Callable[[PipelineHour, Run], bool] = getattr(self, f"_{fault.kind}")
        part = fault.part
        for _ in range(ATTEMPTS):
            run = hour.running()
            others = [other.running() for other in self.hours if beside and other is not hour]
            if self._await_moment(run, fault.step, part):
                where = f"{run.step}: {self._doing(hour)}"
                steps_beside = [other.step for other in others if other.status is None]
                if strike(hour, run):
                    self.tally.note_hit(fault.kind, hour.pipeline.name, where, steps_beside)
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

    def _doing(self, hour: PipelineHour) -> str:
        connections = self.campaign.connections(hour.pipeline.account)
        statements = [statement for _, statement in connections if statement]
        return statements[0].split(maxsplit=1)[0].strip("(").upper() if statements else "no statement"

    def _strike_all(self, kind: str, *hours: PipelineHour) -> None:
        """Notes a fault with every run that it concerns: rivals share the server and the hour."""
        for hour in hours or self.hours:
            for run in hour.runs:
                if run.status is None or not run.noted:
                    run.hits.append(kind)

    def _kill_worker(self, _: PipelineHour, run: Run) -> bool:
        run.kill()
        run.wait()
        if run.status != -9:
            return False
        run.hits.append("kill_worker")
        return True

    def _cut_connection(self, hour: PipelineHour, run: Run) -> bool:
        return self._kill(hour, run, "CONNECTION", "cut_connection")

    def _kill_query(self, hour: PipelineHour, run: Run) -> bool:
        return self._kill(hour, run, "QUERY", "kill_query")

    def _kill(self, hour: PipelineHour, run: Run, what: str, kind: str) -> bool:
        while run.status is None:
            connections = self.campaign.connections(hour.pipeline.account)
            found = [key for key, statement in connections if statement or what == "CONNECTION"]
            if found:
                self._strike_all(kind, hour)
                if self.campaign.kill(what, self.draw.choice(found)):
                    return True
        return False

    def _restart_server(self, _: PipelineHour, run: Run, *, kill: bool = False) -> bool:
        kind = "kill_server" if kill else "restart_server"
        self._strike_all(kind)
        self.campaign.forget_connection()
        self.campaign.private.stop(kill)
        hit = run.status != 0
        time.sleep(self.draw.random() * 0.5)
        self.campaign.private.start()
        return hit

    def _kill_server(self, hour: PipelineHour, run: Run) -> bool:
        return self._restart_server(hour, run, kill=True)

    def _service(self, _: PipelineHour, run: Run) -> bool:
        self._strike_all("service")
        self._meanwhile(self.service.burst, random.Random(self.draw.random()), 0.5 + self.draw.random())
        return run.status is None

    def _rival(self, hour: PipelineHour, run: Run) -> bool:
        rival = hour.start()
        for each in (run, rival):
            each.hits.append("rival")
        return run.status is None

    def _row_locks(self, _: PipelineHour, run: Run) -> bool:
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

    def _read_only(self, _: PipelineHour, run: Run) -> bool:
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
        values = self._values()
        self._check_values(values)
        for hour in self.hours:
            hour.check(values, completed=completed)
            self._check_names(hour)

    def _values(self) -> dict[int, str]:
        rows = self.sql(
            "SELECT id, `values` FROM items WHERE created_datetime >= %s AND created_datetime < %s",
            *(self.plan.start, self.plan.start + datetime.timedelta(hours=1)),
        )
        return {key: in_one_form(text) for key, text in rows}

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

    def _check_names(self, hour: PipelineHour) -> None:
        """Checks that no run has met one of another pipeline, which it would name."""
        strangers = {
            run_id for other in self.hours if other is not hour for run in other.runs if (run_id := run.run_id)
        }
        for run in hour.runs:
            output = run.output
            if named := [stranger for stranger in strangers if stranger in output]:
                hour.report(f"the run {run.run_id} names {named}, of another pipeline")

    def _report(self, what: str, ids: list[int]) -> None:
        self.campaign.report(self.plan, ALL, what, ids)
