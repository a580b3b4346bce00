"""The settings of retries: their defaults, and a sentence for what cannot be used."""

import pytest

from batch_assets.errors import SettingsError
from batch_assets.settings.retry import RetryMode, RetrySettings, retry_mode


def test_without_variables_the_defaults_of_the_readme_are_in_force() -> None:
    settings = RetrySettings.from_environment({"BATCH_RETRY": "", "BATCH_MAX_ATTEMPTS": ""})
    assert settings == RetrySettings(
        policy="partial",
        max_attempts=3,
        max_failed_items=None,
        max_failed_share=None,
        wait_for_busy_hour=True,
        backfill_hours=24,
        transient_retries=5,
        transient_retry_seconds=5.0,
    )


def test_each_variable_sets_what_it_names() -> None:
    settings = RetrySettings.from_environment(
        {
            "BATCH_RETRY": "leave",
            "BATCH_MAX_ATTEMPTS": "7",
            "BATCH_MAX_FAILED_ITEMS": "0",
            "BATCH_MAX_FAILED_SHARE": "0.05",
            "BATCH_BUSY_HOUR": "fail",
            "BATCH_BACKFILL_HOURS": "48",
            "BATCH_TRANSIENT_RETRIES": "0",
            "BATCH_TRANSIENT_RETRY_SECONDS": "0.5",
        }
    )
    assert settings == RetrySettings("leave", 7, 0, 0.05, False, 48, 0, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("BATCH_RETRY", "all", "BATCH_RETRY is 'all': set it to partial or whole_batch or leave."),
        ("BATCH_MAX_ATTEMPTS", "0", "BATCH_MAX_ATTEMPTS is '0': set it to a whole number of 1 or more."),
        ("BATCH_MAX_ATTEMPTS", "2.5", "BATCH_MAX_ATTEMPTS is '2.5': set it to a whole number of 1 or more."),
        ("BATCH_MAX_FAILED_ITEMS", "-1", "BATCH_MAX_FAILED_ITEMS is '-1': set it to a whole number of 0 or more."),
        (
            "BATCH_MAX_FAILED_SHARE",
            "5%",
            "BATCH_MAX_FAILED_SHARE is '5%': set it to a share from 0 to 1, for example 0.05.",
        ),
        (
            "BATCH_MAX_FAILED_SHARE",
            "nan",
            "BATCH_MAX_FAILED_SHARE is 'nan': set it to a share from 0 to 1, for example 0.05.",
        ),
        ("BATCH_BUSY_HOUR", "queue", "BATCH_BUSY_HOUR is 'queue': set it to wait or fail."),
        ("BATCH_BACKFILL_HOURS", "x", "BATCH_BACKFILL_HOURS is 'x': set it to a whole number of 1 or more."),
        (
            "BATCH_TRANSIENT_RETRY_SECONDS",
            "inf",
            "BATCH_TRANSIENT_RETRY_SECONDS is 'inf': set it to a number of 0 or more.",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_can(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RetrySettings.from_environment({name: value})
    assert str(caught.value) == sentence


def test_the_config_of_a_run_comes_before_its_tag_and_that_before_the_policy() -> None:
    whole_batch = RetrySettings(policy="whole_batch")
    assert retry_mode(RetryMode.partial, "whole_batch", whole_batch) == "partial"
    assert retry_mode(None, "partial", whole_batch) == "partial"
    assert retry_mode(None, None, whole_batch) == "whole_batch"
    assert retry_mode(None, None, RetrySettings(policy="leave")) == "partial"
