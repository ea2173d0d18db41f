"""The pages over a small store: what they show, what they refuse, and that a completion is never more than text."""

from pathlib import Path

import pytest
from browsed import COMPLETIONS, LEARNED, PRUNED, QUESTIONS, RUN, SCRIPT, Browsed, Page
from starlette.testclient import TestClient

from reval_core.browsing import application
from reval_core.browsing.reads import Reads
from reval_core.errors import StoreLocked
from reval_core.home import Home

ALLOWED = {
    *("html", "head", "meta", "title", "link", "body", "a", "nav", "strong", "main", "h1", "h2", "h3", "p", "code"),
    *("div", "span", "section", "article", "form", "label", "select", "option", "input", "button", "table", "thead"),
    *("tbody", "tr", "th", "td", "dl", "dt", "dd", "ul", "li", "details", "summary", "pre", "br", "sub", "figure"),
    *("figcaption", "svg", "line", "polyline", "text", "math", "mrow", "mi", "mn", "mo", "mtext", "mfrac", "menclose"),
}
"""Elements that pages are made of."""


def shown(client: TestClient, address: str, status: int = 200) -> Page:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    return Page(answer.text)


def listed(client: TestClient, **query: object) -> list[str]:
    """Ids of the trajectories that a page lists."""
    answer = client.get("/trajectories", params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return [link.removeprefix("/trajectory/") for link in Page(answer.text).links if link.startswith("/trajectory/")]


def every_address(browsed: Browsed) -> list[str]:
    first, second, third, _ = (f"/trajectory/{name}" for name in browsed.training)
    forms = [first, second, third, f"{third}?show=raw", f"{first}?show=tokens", f"{first}/steps"]
    compared = f"/compare?problem={browsed.problem_ids[0]}&one={browsed.base_id}&other={LEARNED}"
    return ["/", "/trajectories", "/compare", compared, "/queries/best_and_worst", *forms]


def test_a_completion_is_never_more_than_text(client: TestClient, browsed: Browsed) -> None:
    for address in every_address(browsed):
        page = shown(client, address)
        assert page.elements <= ALLOWED, address
        for name, value in page.attributes:
            assert not name.startswith("on") and name not in ("style", "src", "srcdoc"), (address, name, value)
        assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in page.links), address
    said = shown(client, f"/trajectory/{browsed.training[0]}")
    assert SCRIPT in said.text
    assert "mfrac" in said.elements
    assert "alert(2)" in shown(client, f"/trajectory/{browsed.training[2]}").text


def test_every_answer_forbids_scripts(client: TestClient) -> None:
    for address in ("/", "/style.css", "/nowhere", "/trajectories?first=x", "/trajectory/trj_none"):
        policy = client.get(address).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'")
        assert "unsafe" not in policy
    assert client.get("/").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:4301", "localhost.evil.example:4300", ""])
def test_another_host_is_not_answered(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert (answer.status_code, "html" in answer.text) == (421, False)


def test_nothing_is_taken_and_nothing_is_loaded_by_other_sites(client: TestClient, browsed: Browsed) -> None:
    assert client.get("/", headers={"host": "localhost:4300"}).status_code == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert client.request(method, "/").status_code == 405
    steps = f"/trajectory/{browsed.training[0]}/steps"
    asked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get(steps, headers=asked).status_code == 403
    assert client.get("/", headers=asked | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_runs(client: TestClient) -> None:
    page = shown(client, "/")
    assert f"/trajectories?run={RUN}" in page.links
    assert "Queries" in page.text


def test_filters(client: TestClient, browsed: Browsed) -> None:
    first, second, third, fourth = browsed.training
    everything = {*browsed.training, *browsed.evaluation}
    assert set(listed(client)) == set(listed(client, run="", purpose="")) == everything
    assert set(listed(client, run=RUN)) == set(browsed.training)  # no stage of the run names the evaluation
    assert listed(client, run="sums") == []
    assert set(listed(client, purpose="evaluation")) == set(browsed.evaluation)
    assert set(listed(client, purpose="training", status="correct")) == {first, third}
    assert listed(client, run=RUN, status="incorrect") == [second]
    assert set(listed(client, status="ungraded")) == {fourth, browsed.evaluation[3]}
    assert listed(client, run=RUN, sort="longest") == [third, first, fourth, second]
    assert listed(client, run=RUN, sort="shortest", least=3, most=4) == [fourth, first]
    assert set(listed(client, problem="3+4", first=0, last=0)) == {third, fourth}
    assert listed(client, first=1) == []
    assert set(listed(client, problem=browsed.problem_ids[0][:12], policy=LEARNED)) == set(browsed.evaluation[:2])
    assert listed(client, problem="%") == listed(client, problem="' OR 1=1 --") == []


def test_pages_follow_one_another(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reval_core.browsing.reads.PAGE", 3)
    for order in ("newest", "shortest"):
        whole, address = [], f"/trajectories?sort={order}"
        while address:
            page = shown(client, address)
            whole += [link for link in page.links if link.startswith("/trajectory/")]
            address = next((link for link in page.links if "after=" in link), "")
        assert len(whole) == len(set(whole)) == 8


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("first=x", "first = 'x'"),
        ("status=wrong", "status = 'wrong'"),
        ("least=-1", "least = '-1'"),
        ("most=99999999999999999999", "most"),
        ("colour=red", "colour = 'red'"),
        ("sort=;drop", "sort"),
        ("key=nan&after=trj", "key"),
    ],
)
def test_a_wrong_filter_is_said(client: TestClient, query: str, said: str) -> None:
    assert said in shown(client, f"/trajectories?{query}", 400).text


def test_one_trajectory(client: TestClient, browsed: Browsed) -> None:
    page = shown(client, f"/trajectory/{browsed.training[0]}")
    for told in (
        "correct",
        "extracted answer",
        "extraction, boxed",
        "admitted it in round 0 with reward 1",
        "0, fresh",
    ):
        assert told in page.text, told
    assert "1 use." in page.text and QUESTIONS[0][0] in page.text
    wrong = shown(client, f"/trajectory/{browsed.training[1]}")
    assert "incorrect" in wrong.text
    ungraded = shown(client, f"/trajectory/{browsed.training[3]}")
    assert "Nothing has graded it yet" in ungraded.text
    assert "No update was trained on it" in shown(client, f"/trajectory/{browsed.evaluation[0]}").text


def test_a_huge_text_is_cut_and_is_there_as_plain_text(client: TestClient, browsed: Browsed) -> None:
    address = f"/trajectory/{browsed.training[3]}"
    for view in ("", "?show=raw"):
        answer = client.get(address + view)
        assert len(answer.content) < 300_000
        assert "300,019 more characters" in answer.text
    plain = client.get(f"{address}/text")
    assert (plain.text, plain.headers["content-type"]) == (COMPLETIONS[3], "text/plain; charset=utf-8")


def test_compare(client: TestClient, browsed: Browsed) -> None:
    first, second = browsed.problem_ids
    assert {link for link in shown(client, "/compare").links if "problem=" in link} == {
        f"/compare?problem={first}",
        f"/compare?problem={second}",
    }
    page = shown(client, f"/compare?problem={first}&one={browsed.base_id}&other={LEARNED}")
    assert page.text.count("1 of 2 right") >= 2
    sides = [link.removeprefix("/trajectory/") for link in page.links if link.startswith("/trajectory/")]
    assert sides == [*browsed.training[:2], *browsed.evaluation[:2]]
    assert sides == [
        link[12:]
        for link in shown(client, f"/compare?problem=1%2B2&one={browsed.base_id}").links
        if link.startswith("/trajectory/")
    ]
    long = client.get(f"/compare?problem={second}&one={browsed.base_id}&other={LEARNED}")
    assert len(long.content) < 50_000 and "490,019 more characters" in long.text
    assert "has not answered" in shown(client, f"/compare?problem={first}&one={PRUNED}").text
    assert "No problem" in shown(client, "/compare?problem=nothing").text


def test_named_queries(client: TestClient, browsed: Browsed) -> None:
    assert "/queries/learning_curve" in shown(client, "/queries").links
    assert "1 row" in shown(client, f"/queries/learning_curve?run={RUN}").text
    page = shown(client, f"/queries/trained_on?policy={LEARNED}&update=0")
    assert f"/trajectory/{browsed.training[0]}" in page.links
    assert "no parameter 'limit'" in shown(client, "/queries/learning_curve?limit=3", 400).text
    assert "whole number" in shown(client, "/queries/trained_on?update=1;", 400).text
    assert "dotted key" in shown(client, "/queries/runs_by_setting?setting=a'b", 400).text
    assert "There is no query" in shown(client, "/queries/select", 404).text
    assert "0 rows" in shown(client, "/queries/learning_curve?run=' OR 1=1 --").text
    assert f"/trajectory/{browsed.training[0]}" in shown(client, f"/queries/trained_on?policy={LEARNED[:-1]}").links
    assert "no policy nosuch" in shown(client, "/queries/trained_on?policy=nosuch", 400).text


def test_what_is_not_there_is_said(client: TestClient, browsed: Browsed) -> None:
    for address in ("/trajectory/trj_none", "/trajectory/trj_none/steps", "/no/page"):
        assert "There is no" in shown(client, address, 404).text
    assert "There is no policy" in shown(client, f"/trajectory/{browsed.training[0]}/steps?policy=pol_x", 404).text
    assert "expected rendered" in shown(client, f"/trajectory/{browsed.training[0]}?show=all", 400).text


def test_a_store_that_is_held_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(self: Reads) -> None:
        raise StoreLocked("The database has been held by process 7.")

    monkeypatch.setattr(Reads, "runs", held)
    assert "held by process 7" in shown(client, "/", 503).text


def test_an_empty_store(tmp_path: Path) -> None:
    from reval_core.store import Store

    home = Home(tmp_path)
    Store(home.database).prepare()
    with TestClient(application(home, 4300), base_url="http://127.0.0.1:4300") as asks:
        assert "There is no run in this store yet" in asks.get("/").text
        assert "0 trajectories" in asks.get("/trajectories").text
        assert asks.get("/compare").status_code == asks.get("/queries/learning_curve").status_code == 200
