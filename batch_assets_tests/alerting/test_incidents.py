"""Which incidents there are, and which of them are new or over: pure functions."""

import datetime

from batch_assets.alerting.incidents import (
    CHECK_FAILED,
    DRIFT,
    HOUR_FAILED,
    CheckOfHour,
    Findings,
    Subject,
    changes,
    checks_failed,
    hours_given_up,
    hours_left_failed,
)
from batch_assets.alerting.messages import messages
from batch_assets.database.records.incidents import Incident, RecordedIncident
from batch_assets.hours import Hour
from batch_assets.retrying.decision import FAILED, SUCCEEDED, EndedRun, HourRequest

NOW = datetime.datetime(2026, 11, 9)  # noqa: DTZ001 - UTC without a zone, as in the database
HOUR, NEXT = Hour(NOW), Hour(NOW + datetime.timedelta(hours=1))
MINUTE = datetime.timedelta(minutes=1)
PETAL, SEPAL = (Incident(DRIFT, f"feature {name}", HOUR, "unusual") for name in ("petal", "sepal"))


def recorded(incident: Incident, number: int = 1, *, over: bool = False) -> RecordedIncident:
    return RecordedIncident(number, incident, NOW, NOW, NOW if over else None)


def test_what_is_known_is_no_news_and_what_is_gone_is_over() -> None:
    assert changes(Findings([PETAL]), []) == ([PETAL], [])
    assert changes(Findings([PETAL]), [recorded(PETAL)]) == ([], [])
    assert changes(Findings([SEPAL]), [recorded(PETAL)]) == ([SEPAL], [recorded(PETAL)])


def test_what_cannot_be_told_stays_as_it_was() -> None:
    undecided = Findings(undecided={Subject(DRIFT, "feature petal")})
    assert changes(undecided, [recorded(PETAL)]) == ([], [])
    assert changes(undecided, []) == ([], [])


def test_what_comes_again_before_its_end_was_told_is_a_new_incident() -> None:
    assert changes(Findings([PETAL]), [recorded(PETAL, over=True)]) == ([PETAL], [])
    assert changes(Findings(), [recorded(PETAL, over=True)]) == ([], [])


def request(given_up_at: datetime.datetime | None, requested_at: datetime.datetime = NOW) -> HourRequest:
    return HourRequest(1, "failed run", "", requested_at, given_up_at, "no model" if given_up_at else None)


def test_an_hour_that_was_given_up_is_told_of_if_that_is_new_or_was_told_before() -> None:
    requests = {HOUR: request(NOW), NEXT: request(None)}
    [incident] = hours_given_up(requests, NOW, []).open
    assert incident == Incident(HOUR_FAILED, HOUR.key, HOUR, "given up: no model")
    assert hours_given_up(requests, NOW + MINUTE, []).open == []
    assert hours_given_up(requests, NOW + MINUTE, [HOUR]).open == [incident]


def test_a_failed_run_that_another_one_follows_is_not_told_of_yet() -> None:
    runs = {HOUR: EndedRun("a", FAILED, NOW), NEXT: EndedRun("b", SUCCEEDED, NOW)}
    assert [each.subject for each in hours_left_failed(runs, []).open] == [HOUR.key]
    assert hours_left_failed(runs, [HOUR]) == Findings([], {Subject(HOUR_FAILED, HOUR.key)})


def test_a_check_is_told_of_when_nothing_more_is_done_about_its_hour() -> None:
    check = CheckOfHour("answers_are_finite", HOUR, passed=False, found="1 is not finite")
    subject = f"{HOUR.key} answers_are_finite"
    undecided = Findings([], {Subject(CHECK_FAILED, subject)})
    assert checks_failed([check], {HOUR: request(None)}, [], NOW + MINUTE) == undecided
    assert checks_failed([check], {}, [HOUR], NOW) == undecided
    told = Findings([Incident(CHECK_FAILED, subject, HOUR, "1 is not finite")])
    assert checks_failed([check], {}, [], NOW) == told
    # Where the sensor that retries is off, what it was to do is not waited for for ever.
    assert checks_failed([check], {HOUR: request(None)}, [], NOW + datetime.timedelta(days=1)) == told


def test_a_check_that_a_run_is_to_say_anew_stays_as_it_was() -> None:
    check = CheckOfHour("answers_are_finite", HOUR, passed=None, found="")
    assert checks_failed([check], {}, [], NOW).open == []
    assert checks_failed([check], {}, [], NOW).undecided == {Subject(CHECK_FAILED, f"{HOUR.key} answers_are_finite")}


def test_a_cause_is_one_line_of_bounded_length() -> None:
    fault = "It failed:\n" + "very badly, " * 100
    [incident] = hours_left_failed({HOUR: EndedRun("a", FAILED, NOW, fault=fault)}, []).open
    assert len(incident.cause) == 500
    assert "\n" not in incident.cause


def test_what_is_over_is_said_before_what_is_new_and_each_kind_by_itself() -> None:
    failed = Incident(HOUR_FAILED, HOUR.key, HOUR, "given up: no model")
    new = RecordedIncident(3, SEPAL, NOW)
    said = messages("churn", [new, recorded(failed, over=True), recorded(PETAL, 2, over=True)], lambda hour: hour.key)
    assert [(message.title, message.is_over) for message in said] == [
        ("churn: over: 1 alarm of drift", True),
        ("churn: over: 1 hour failed", True),
        ("churn: 1 alarm of drift", False),
    ]
    assert said[2].body == f"feature sepal: unusual.\n{HOUR.key}"
    assert messages("churn", [new], None)[0].body == "feature sepal: unusual."
