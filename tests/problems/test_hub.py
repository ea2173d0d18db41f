"""What is fetched from the hub again and what is not, by the errors of the hub's own library."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import snapshot_download

from reval_core.problems import hub
from reval_core.problems.hub import TRIES, fetched, may_pass


class Hub(BaseHTTPRequestHandler):
    """A hub that answers every question with the status code in the name that is asked for."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.rpartition("-")[2][:3]))
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def error_of(name: str, endpoint: str, cache: Path) -> Exception:
    with pytest.raises(Exception) as caught:
        snapshot_download(name, endpoint=endpoint, cache_dir=cache)
    return caught.value


@pytest.mark.parametrize(("code", "passes"), [(503, True), (502, True), (404, False), (401, False), (403, False)])
def test_a_busy_hub_may_answer_later_and_a_refusal_stays(
    code: int, passes: bool, endpoint: str, tmp_path: Path
) -> None:
    assert may_pass(error_of(f"someone/model-{code}", endpoint, tmp_path)) is passes


def test_a_network_that_is_away_may_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_pass(error_of("someone/model", "http://127.0.0.1:9", tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not may_pass(error_of("someone/model", "http://127.0.0.1:9", tmp_path))


def test_what_is_no_matter_of_the_network_stays() -> None:
    for error in (OSError(28, "no space left"), ValueError("no such split"), MemoryError(), PermissionError()):
        assert not may_pass(error)


def test_the_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    monkeypatch.setattr(hub.random, "uniform", lambda low, high: high)
    calls: list[int] = []

    def fetch(right_at: int) -> str:
        calls.append(1)
        if len(calls) < right_at:
            raise ConnectionResetError
        return "here"

    assert fetched(lambda: fetch(3)) == "here"
    assert pauses == [3.0, 6.0]
    assert "the hub could not be reached (ConnectionResetError); trying again in 3 s" in caplog.text
    calls.clear()
    with pytest.raises(ConnectionResetError):
        fetched(lambda: fetch(99))
    assert len(calls) == TRIES
    assert pauses[2:] == [3.0, 6.0, 12.0]


def test_a_refusal_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: pytest.fail("it waited"))

    def refused() -> None:
        raise FileNotFoundError("no such data set")

    with pytest.raises(FileNotFoundError):
        fetched(refused)
