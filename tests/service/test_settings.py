from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from bundle.serving import Latest
from service import settings as module
from service.settings import Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"OCTET_{name.upper()}", raising=False)


def test_every_setting_has_a_documentation_string() -> None:
    assert Settings.model_fields
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_help_lists_every_setting_with_its_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        CliApp.run(Settings, cli_args=["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description is not None
        assert " ".join(field.description.split())[:40] in text


def test_a_flag_beats_a_variable_which_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliApp.run(Settings, cli_args=[]).port == 8000
    monkeypatch.setenv("OCTET_PORT", "9001")
    assert CliApp.run(Settings, cli_args=[]).port == 9001
    assert CliApp.run(Settings, cli_args=["--port", "9002"]).port == 9002


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTET_THREADS", "")
    assert Settings().threads is None


def test_variables_are_converted_to_the_types_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTET_MODELS", "/srv/models")
    monkeypatch.setenv("OCTET_DRAIN_DELAY_S", "0.5")
    monkeypatch.setenv("OCTET_LOG_FORMAT", "json")
    chosen = Settings()
    assert (chosen.models, chosen.drain_delay_s, chosen.log_format) == (Path("/srv/models"), 0.5, "json")


@pytest.mark.parametrize(
    "bad",
    [
        {"port": -1},
        {"port": 65536},
        {"provider": "require-abacus"},
        {"workers": 0},
        {"threads": 0},
        {"max_body_bytes": 0},
        {"max_pixels": 0},
        {"max_audio_s": 0},
        {"max_rows": 0},
        {"max_queue_size": 0},
        {"deadline_ms": 0},
        {"body_timeout_s": 0},
        {"drain_delay_s": -1},
        {"log_format": "xml"},
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**bad)  # type: ignore[arg-type]
    assert [error["loc"] for error in refused.value.errors()] == [tuple(bad)]


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(SettingsError, match="unrecognized arguments: --prot 80"):
        CliApp.run(Settings, cli_args=["--prot", "80"])


def test_limits_are_those_of_the_settings() -> None:
    limits = Settings(max_pixels=12, max_audio_s=3.5).limits
    assert (limits.max_pixels, limits.max_audio_s) == (12, 3.5)


@pytest.mark.parametrize(
    ("threads", "workers", "expected"), [(None, 1, 7), (None, 2, 3), (None, 9, 1), (5, 2, 5)]
)
def test_threads_are_the_allowed_cpus_over_the_workers_unless_they_are_set(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, workers: int, expected: int
) -> None:
    monkeypatch.setattr(module, "allowed_cpus", lambda: 7)
    assert Settings(threads=threads, workers=workers).run_threads == expected


def test_the_versions_to_serve_are_all_or_the_latest_few() -> None:
    assert Settings().version_policy == "all"
    assert Settings(versions="latest:2").version_policy == Latest(latest=2)
    with pytest.raises(ValidationError, match="must be 'all' or 'latest:N', not 'latest:0'"):
        Settings(versions="latest:0")
