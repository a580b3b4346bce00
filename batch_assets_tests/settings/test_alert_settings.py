"""Who is notified of incidents, as the environment says it."""

from pathlib import Path

import pytest

from batch_assets.settings.alerts import AlertSettings

SLACK, MAIL = "slack://T/A/B/#batch", "mailtos://shop:secret@example.com?to=one@example.com,two@example.com"


@pytest.mark.parametrize("between", [" ", ",", ", ", "\n", "\n\n", ",\n"])
def test_addresses_stand_with_blanks_or_commas_between_them(between: str) -> None:
    settings = AlertSettings.from_environment({"BATCH_ALERT_URLS": f"{SLACK}{between}{MAIL}{between}{SLACK}"})
    assert settings.addresses == (SLACK, MAIL, SLACK)


@pytest.mark.parametrize("text", [None, "", " ", "\n"])
def test_without_an_address_nobody_is_told(text: str | None) -> None:
    environment = {} if text is None else {"BATCH_ALERT_URLS": text}
    assert AlertSettings.from_environment(environment).addresses == ()


def test_addresses_are_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "addresses").write_text(f"{SLACK}\n{MAIL}\n")
    settings = AlertSettings.from_environment({"BATCH_ALERT_URLS_FILE": str(tmp_path / "addresses")})
    assert settings.addresses == (SLACK, MAIL)
    assert "secret" not in repr(settings)
