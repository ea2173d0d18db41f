"""What is printed, logged and stored holds no secret."""

import logging

import pytest

from reval_core.redaction import Redacting, holds_secret, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("connect to https://me:pass@host:5000/x failed", "connect to https://***@host:5000/x failed"),
        ("postgresql+psycopg2://user:S3CRET@db/reval", "postgresql+psycopg2://***@db/reval"),
        ("https://user:pa/ss@host", "https://***@host"),
        ("http://h/?token=abc&x=1", "http://h/?token=***&x=1"),
        ("sqlite:////home/me/.reval/mlflow.db", "sqlite:////home/me/.reval/mlflow.db"),
        ("mail me@example.org about http://host/page", "mail me@example.org about http://host/page"),
    ],
)
def test_names_and_tokens_in_addresses(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert holds_secret(text) == (text != shown)


def test_values_of_secret_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HUB_TOKEN", "canary-0815")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    monkeypatch.setenv("USER_NAME", "canarybird")
    assert without_secrets("canary-0815, a canarybird") == "***, a canarybird"


def test_log_records(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary-0815")
    caplog.handler.addFilter(Redacting())
    logging.getLogger("tasks").warning("%s of %d", "http://me:x@h canary-0815", 3)
    assert caplog.messages == ["http://***@h *** of 3"]
