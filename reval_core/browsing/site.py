"""The trajectory browser as a web application: which address shows what. It only reads; every view has an address.

Pages are made on this side and hold no script, so they work without a network, in any browser, and with a keyboard.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from reval_core.browsing import figures
from reval_core.browsing.filters import filters_of
from reval_core.browsing.guard import Guard
from reval_core.browsing.pages import FOLDER, page
from reval_core.browsing.path import Path, Paths
from reval_core.browsing.questions import Question, question, questions
from reval_core.browsing.reads import NotThere, Reads, Row, Trajectory
from reval_core.browsing.texts import cut, rendered
from reval_core.errors import ConfigError, PolicyError, RevalError, StoreError, StoreLocked
from reval_core.home import Home
from reval_core.store import Store

if TYPE_CHECKING:
    from reval_core.browsing.steps import Scorer, Steps

READ_WAIT_S = 30.0
"""Seconds that a page waits for a run's commit to end; commits take a fraction of one."""
VIEWS = ("rendered", "raw", "tokens")
"""Forms in which a completion is shown."""
MOST_BESIDE = 10_000
"""Characters of each text where many stand side by side."""
MOST_TOKENS = 20_000
"""Tokens that a page shows."""
MOST_ROWS = 1000
"""Rows of a query's result that a page shows."""
NOT_SAVED = 409
"""HTTP's status of a page that takes a policy which is not there."""
STATUS = ((NotThere, 404), (StoreLocked, 503), (ConfigError, 400), (PolicyError, NOT_SAVED), (StoreError, 400))
"""Of errors that are told on a page of their own; the first that fits."""


class Site:
    """What answers the requests.

    Args:
        home: the root whose store is shown.
        device: torch device that implicit step rewards are computed on.
    """

    def __init__(self, home: Home, device: str) -> None:
        self._home, self._device = home, device
        self._reads = Reads(Store(home.database, lock_wait_s=READ_WAIT_S))
        self._paths = Paths()
        self._alone = threading.Lock()
        self._scorer: Scorer | None = None

    def routes(self) -> list[Route]:
        """Addresses and what they show."""
        shown: dict[str, Callable[[Request], Response]] = {
            "/": self.runs,
            "/trajectories": self.trajectories,
            "/trajectory/{trajectory}": self.trajectory,
            "/trajectory/{trajectory}/text": self.text,
            "/trajectory/{trajectory}/steps": self.steps,
            "/compare": self.compare,
            "/queries": self.queries,
            "/queries/{query}": self.query,
            "/style.css": self.style,
        }
        return [Route(path, answer, methods=["GET"]) for path, answer in shown.items()]

    def close(self) -> None:
        """End what runs beside."""
        self._paths.close()

    def runs(self, request: Request) -> Response:
        """All runs with links to what they did."""
        runs, note = self._reads.runs()
        return page("runs", root=str(self._home.root), runs=runs, note=note)

    def trajectories(self, request: Request) -> Response:
        """A page of trajectories, filtered."""
        filters = filters_of(request.query_params)
        listed = self._reads.listed(filters)
        return page("trajectories", filters=filters, listed=listed, runs=self._reads.run_names())

    def trajectory(self, request: Request) -> Response:
        """One trajectory, with the verifier's path."""
        found = self._reads.trajectory(request.path_params["trajectory"])
        view = request.query_params.get("show", "rendered")
        if view not in VIEWS:
            raise ConfigError(f"show = {view[:50]!r}: expected {', '.join(VIEWS)}.")
        text, left = cut(found.completion or "")
        pieces, unread = self._tokens(found) if view == "tokens" else ([], None)
        return page(
            "trajectory",
            found=found,
            view=view,
            views=VIEWS,
            question=_shown(found.row["question"]),
            text=rendered(text) if view == "rendered" else text,
            left=left,
            pieces=pieces,
            unread=unread,
            path=self._path(found, asked="path" in request.query_params),
        )

    def _tokens(self, found: Trajectory) -> tuple[list[tuple[int, str]], str | None]:
        """(id, text) of the tokens of a completion, or why there are none."""
        if not found.saved:
            return [], "No policy with the tokenizer of this trajectory is saved here."
        try:
            pieces = self._scores().pieces(found.row["trajectory_id"], found.saved[0]["policy_id"])
        except RevalError as error:
            return [], str(error)
        return pieces[:MOST_TOKENS], None

    def text(self, request: Request) -> Response:
        """A completion as plain text, whole."""
        found = self._reads.trajectory(request.path_params["trajectory"])
        if found.completion is None:
            raise StoreError(found.lost or "Its text is not in this store.")
        return PlainTextResponse(found.completion.encode("utf-8", "replace"))

    def _path(self, found: Trajectory, *, asked: bool) -> Path | None:
        """The verifier's path of the verdict that counts; None where it has to be asked for, as it takes a process."""
        if not found.verdicts or found.completion is None:
            return Path((), "Nothing has graded it yet." if not found.verdicts else None)
        verdict = found.verdicts[0]
        if verdict["gold"] is None:
            return Path((), "The gold answer that it was graded against is not in this store.")
        if verdict["tier"] == "symbolic" and not asked:
            return None
        return self._paths.path(verdict["gold"], found.completion, found.row["config"], verdict["verifier_id"])

    def steps(self, request: Request) -> Response:
        """The implicit step rewards of a completion."""
        found = self._reads.trajectory(request.path_params["trajectory"])
        trajectory_id = found.row["trajectory_id"]
        chosen = request.query_params.get("policy") or (found.saved[0]["policy_id"] if found.saved else None)
        if chosen is None:
            raise PolicyError(
                "No policy is saved here whose tokens are those of this trajectory. `reval evaluate POLICY` learns one "
                "again from stored trajectories and saves it."
            )
        policy = self._reads.policy(chosen)
        reference = policy["reference_policy_id"] or found.row["base_policy_id"] or chosen
        steps: Steps | None = None
        failed: str | None = None
        try:
            steps = self._scores().steps(trajectory_id, chosen, reference)
        except PolicyError as error:
            failed = str(error)
        values = {} if steps is None else _drawn(steps)
        return page(
            "steps",
            status=200 if failed is None else NOT_SAVED,
            found=found,
            policy=policy,
            reference=reference,
            steps=steps,
            failed=failed,
            **{"tokens": [], "line": None, "left": 0, "total": None} | values,
        )

    def _scores(self) -> Scorer:
        """What scores completions; it takes PyTorch, so it is imported when it is first asked for."""
        with self._alone:
            if self._scorer is None:
                from reval_core.browsing.steps import Scorer

                self._scorer = Scorer(self._home, self._reads.store, self._device)
            return self._scorer

    def compare(self, request: Request) -> Response:
        """What two policies answered to one problem."""
        asked = request.query_params
        problem_id = (asked.get("problem") or "").strip()
        try:
            problem, policies = self._reads.problem(problem_id)
        except NotThere:
            found, note = self._reads.problems(problem_id or None)
            if len(found) != 1:
                return page("problems", text=problem_id, problems=found, note=note)
            problem, policies = self._reads.problem(found[0]["problem_id"])
        names = [row["policy_id"] for row in policies]
        chosen = [asked.get("one") or "", asked.get("other") or ""]
        for side, other in ((0, 1), (1, 0)):
            if not chosen[side]:
                chosen[side] = next((name for name in names if name != chosen[other]), "")
        known = {row["policy_id"]: row for row in policies}
        answers = self._reads.responses(problem["problem_id"], chosen)
        sides = [(name, known.get(name), _side(rows)) for name, rows in zip(chosen, answers, strict=True)]
        return page(
            "compare",
            problem=problem,
            question=_shown(problem["question"]),
            policies=policies,
            chosen=chosen,
            sides=sides,
        )

    def queries(self, request: Request) -> Response:
        """The named queries."""
        return page("queries", questions=questions())

    def query(self, request: Request) -> Response:
        """A named query with a form for its parameters, and its result."""
        asked: Question = question(request.path_params["query"])
        values = asked.values(request.query_params)
        table, note = self._reads.named(asked.name, values)
        rows = table.slice(0, MOST_ROWS).to_pylist()
        runs = self._reads.run_names() if "run" in asked.parameters else []
        return page(
            "query",
            asked=asked,
            values=values,
            names=table.column_names,
            rows=rows,
            count=table.num_rows,
            note=note,
            runs=runs,
        )

    def style(self, request: Request) -> Response:
        """The style sheet."""
        return Response((FOLDER / "style.css").read_bytes(), media_type="text/css")


def _side(rows: list[Row]) -> list[Row]:
    """Responses with their texts as HTML."""
    for row in rows:
        text, left = cut(row["completion"] or "", MOST_BESIDE)
        row |= {"text": rendered(text) if row["completion"] is not None else None, "left": left}
    return rows


def _shown(question: str | None) -> Markup:
    """A question with its formulas."""
    return rendered(cut(question or "—")[0])


def _drawn(steps: Steps) -> dict[str, object]:
    """Tokens with values and colours, and the running sum."""
    reward = steps.reward
    rows = zip(steps.pieces, reward, steps.logprob, steps.ref_logprob, figures.shades(reward), strict=True)
    tokens = [
        {"text": text, "reward": value, "logprob": logprob, "ref_logprob": ref_logprob, "shade": shade}
        for (text, value, logprob, ref_logprob, shade), _ in zip(rows, range(MOST_TOKENS), strict=False)
    ]
    left = len(steps.pieces) - len(tokens)
    return {"tokens": tokens, "line": figures.running_sum(reward), "left": left, "total": float(reward.sum())}


def application(home: Home, port: int, device: str = "cpu") -> ASGIApp:
    """The browser of a root, to be served on 127.0.0.1.

    Args:
        home: the root.
        port: on which it is served; requests that name another host or port are refused.
        device: torch device that implicit step rewards are computed on.
    """
    site = Site(home, device)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        site.close()

    answers = {RevalError: _told, HTTPException: _told, Exception: _told}
    return Guard(Starlette(routes=site.routes(), exception_handlers=answers, lifespan=lifespan), port)


def _told(request: Request, error: Exception) -> Response:
    """An error as a page that says what to do."""
    if isinstance(error, HTTPException):
        return page("error", status=error.status_code, said=f"There is no page {request.url.path}.")
    if isinstance(error, RevalError):
        return page(
            "error", status=next((code for kind, code in STATUS if isinstance(error, kind)), 500), said=str(error)
        )
    return page("error", status=500, said="This page failed by a fault of ReVal's own; the terminal says where.")
