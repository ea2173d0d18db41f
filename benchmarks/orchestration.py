"""What orchestration costs: the quickstart as a flow beside the same loop alone, and how long a start takes.

    python benchmarks/orchestration.py                        # 20 rounds of the quickstart, about six minutes
    python benchmarks/orchestration.py --rounds 6 --set rollouts.prompts_per_iteration=8 --json result.json

Each round of the flow (Prefect's server, MLflow, store, files, watcher, all as in `reval train`) follows on the same
round of the plain loop (benchmarks/plain_loop.py) in one process, so that what others do on the machine meets both. The
two must give the same losses and weights. Before it the plain loop runs once without any of this in its process, which
shows what threads in the background cost. For what is done every so many seconds a round counts as one of 30 s. Parts
are timed from outside, the inner ones taken out of the outer: seconds of the clock, and of the processor in the main
thread, which the work of other programs changes less.

A start is timed as a command, less the time that Python takes to import what the command imports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.plain_loop import PlainLoop, Round  # noqa: E402
from reval_core.config import Config  # noqa: E402
from reval_core.config_files import load_config  # noqa: E402
from reval_core.home import Home  # noqa: E402
from tasks.services import configure, prefect_server  # noqa: E402

ROUND_S = 30.0
"""Seconds of a round, as far as anything goes by the clock."""
BAR_S = 0.3
"""Seconds a round over the plain loop, the median at most: 1 % of a round of 30 s."""
START_S = 5.0
"""Seconds of a start beyond imports at most."""
STARTS = 3
"""Times that each start is measured."""
SETTINGS = ("evaluation.before=false", "evaluation.after=false", "evaluation.every=1000000")
"""Evaluations are no orchestration."""
WORK = ("sample", "grade", "reference scores", "updates")
"""Parts that are the work itself, in both loops."""


Seconds = npt.NDArray[np.float64]
"""[2] of the clock, and of the processor in the main thread."""


def _now() -> Seconds:
    return np.array([time.perf_counter(), time.thread_time()])


class Ledger:
    """Seconds by part of the round that is under way, of the main thread.

    A part inside another is taken out of it, but for one inside a closed part: a read of the store for MLflow is a cost
    of MLflow.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, Seconds] = {}
        self._open: list[tuple[str, bool]] = []
        self._since = _now()
        self._thread = threading.get_ident()

    def begin(self) -> None:
        """A round begins."""
        self._seconds, self._open, self._since = defaultdict(lambda: np.zeros(2)), [("the rest", False)], _now()

    def end(self) -> dict[str, Seconds]:
        """The round's seconds by part."""
        self._switch()
        self._open = []
        return dict(self._seconds)

    @contextmanager
    def part(self, name: str, *, closed: bool = False) -> Iterator[None]:
        """Time of the block is this part's."""
        if not self._open or self._open[-1][1] or threading.get_ident() != self._thread:
            yield
            return
        self._switch()
        self._open.append((name, closed))
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        now = _now()
        self._seconds[self._open[-1][0]] += now - self._since
        self._since = now

    def time(self, owner: Any, attribute: str, name: str, *, closed: bool = True) -> None:
        """Time a function, method or context manager of a module or class under this name, from now on."""
        timed = getattr(owner, attribute)

        def calling(*given: Any, **named: Any) -> Any:
            with self.part(name, closed=closed):
                return timed(*given, **named)

        setattr(owner, attribute, calling)

    def time_blocks(self, owner: Any, attribute: str, name: str) -> None:
        """Time the blocks of a method that gives a context manager."""
        timed = getattr(owner, attribute)

        @contextmanager
        def within(*given: Any, **named: Any) -> Iterator[Any]:
            with self.part(name, closed=True), timed(*given, **named) as value:
                yield value

        setattr(owner, attribute, within)

    def time_items(self, owner: Any, attribute: str, name: str) -> None:
        """Time what a generator takes for its items, and not what is done with them."""
        timed = getattr(owner, attribute)

        def giving(*given: Any, **named: Any) -> Iterator[Any]:
            items, nothing = iter(timed(*given, **named)), object()
            while True:
                with self.part(name, closed=True):
                    item = next(items, nothing)
                if item is nothing:
                    return
                yield item

        setattr(owner, attribute, giving)


def instrument(ledger: Ledger) -> None:
    """Name the parts of both loops."""
    import prefect.tasks

    import flows.train
    import reval_core.learning.reference
    import reval_core.policies.materialise
    import tasks.track
    from reval_core.learning.learner import Learner
    from reval_core.rollouts.transformers_engine import TransformersEngine
    from reval_core.store.connection import Connections
    from reval_core.verification import Grader
    from tasks.stage import Stage
    from tasks.watched import Watch

    ledger.time_items(TransformersEngine, "sample", "sample")
    ledger.time(Grader, "grade_batch", "grade")
    for module in (reval_core.learning.reference, reval_core.policies.materialise):
        ledger.time(module, "reference_scores", "reference scores")
    ledger.time(Learner, "update", "updates")
    ledger.time(prefect.tasks.Task, "__call__", "Prefect's task runs", closed=False)
    ledger.time(Stage, "_run", "the rest", closed=False)
    ledger.time_blocks(Connections, "read", "store: reads")
    ledger.time_blocks(Connections, "write", "store: commits")
    ledger.time(reval_core.policies.materialise, "weights_checksum", "checksum of the weights")
    ledger.time(Watch, "_tell", "watcher")
    ledger.time(tasks.track, "reconcile", "MLflow")
    for function, name in {
        "publish": "settle and snapshot",
        "show_artifact": "Prefect's page",
        "watch_health": "health",
        "show_round": "line on the terminal",
        "checkpoint": "checkpoint (every 10th round)",
    }.items():
        ledger.time(flows.train, function, name)


class Comparison:
    """Rounds of both loops, in turn."""

    def __init__(self, config: Config, home: Home) -> None:
        self.config, self.home, self.ledger = config, home, Ledger()
        self.alone: list[Round] = []
        self.plain: list[Round] = []
        self.plain_parts: list[dict[str, Seconds]] = []
        self.flow_parts: list[dict[str, Seconds]] = []
        self.weights: list[str] = []
        """Of the plain loop's policies."""

    def run(self) -> None:
        """The plain loop, then flow and plain loop in turn."""
        import torch

        import flows.train
        from tasks.progress import Progress
        from tasks.run import Here, Run

        if self.config.model.threads:
            torch.set_num_threads(self.config.model.threads)
        instrument(self.ledger)
        self.alone = list(self._loop().rounds())
        beside = self._beside()
        rounds = Run.rounds

        def in_turn(run: Run) -> Iterator[Here]:
            began = time.monotonic()
            for here in rounds(run):
                next(beside)
                longer, began = time.monotonic() - began - ROUND_S, time.monotonic()
                run.shown_at, run.published_at = run.shown_at + longer, run.published_at + longer
                self.ledger.begin()
                yield here
                self.flow_parts.append(self.ledger.end())

        Run.rounds = in_turn  # type: ignore[method-assign]
        with prefect_server(self.home):
            self.run_id = flows.train.train(self.config, self.home, Progress(quiet=True)).run_id

    def _loop(self) -> PlainLoop:
        from reval_core.policies.base import base_policy
        from tasks.inputs import read_problems

        return PlainLoop(self.config, base_policy(self.config.model, self.home.models), *read_problems(self.config))

    def _beside(self) -> Iterator[None]:
        from reval_core.policies.folder import weights_checksum

        loop = self._loop()
        rounds = loop.rounds()
        while True:
            self.ledger.begin()
            done = next(rounds)
            self.plain_parts.append(self.ledger.end())
            self.plain.append(done)
            self.weights.append(weights_checksum(loop.model))
            yield

    def differences(self) -> list[str]:
        """Where the flow gave another policy, other weights or another loss than the plain loop."""
        from reval_core.store import Store

        store = Store(self.home.database)
        rows = store.query_live(
            "SELECT r.iteration, r.policy_id, p.weights_checksum, list(u.loss ORDER BY u.update_index) AS losses "
            "FROM rounds AS r JOIN store.policies AS p USING (policy_id) JOIN store.updates AS u USING (policy_id) "
            "WHERE r.run_id = $run_id GROUP BY ALL ORDER BY r.iteration",
            run_id=self.run_id,
        ).to_pylist()
        found = [(row["policy_id"], row["weights_checksum"], tuple(row["losses"])) for row in rows]
        wanted = [
            (done.policy_id, weights, done.losses) for done, weights in zip(self.plain, self.weights, strict=True)
        ]
        if [done.losses for done in self.alone] != [done.losses for done in self.plain]:
            return ["the plain loop gave other losses the second time"]
        if len(found) != len(wanted):
            return [f"the flow has {len(found)} rounds, the plain loop {len(wanted)}"]
        return [f"round {n}: {a} beside {b}" for n, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b]

    def table(self) -> dict[str, Any]:
        """Medians and means of the rounds, [clock, processor] in seconds; `over` is of the differences by round."""
        flow = [sum(parts.values(), np.zeros(2)) for parts in self.flow_parts]
        plain = [sum(parts.values(), np.zeros(2)) for parts in self.plain_parts]
        names = {name for rounds in (self.flow_parts, self.plain_parts) for parts in rounds for name in parts}
        parts = {name: (_of(self.flow_parts, name), _of(self.plain_parts, name)) for name in names}
        return {
            "rounds": len(flow),
            "flow": _summary(flow),
            "plain": _summary(plain),
            "over": _summary([a - b for a, b in zip(flow, plain, strict=True)]),
            "alone_s": statistics.median(done.seconds for done in self.alone),
            "beside_s": statistics.median(done.seconds for done in self.plain),
            "parts": {
                name: {"flow": _summary(of_flow), "plain": _summary(of_plain)}
                for name, (of_flow, of_plain) in sorted(parts.items(), key=lambda item: -np.mean(item[1][0], 0)[0])
            },
        }


def _of(rounds: list[dict[str, Seconds]], name: str) -> list[Seconds]:
    return [parts.get(name, np.zeros(2)) for parts in rounds]


def _summary(seconds: list[Seconds]) -> dict[str, list[float]]:
    return {"median": np.median(seconds, 0).tolist(), "mean": np.mean(seconds, 0).tolist()}


def show(table: dict[str, Any]) -> None:
    """Print the comparison."""

    def cells(flow: dict[str, Any], plain: dict[str, Any]) -> str:
        numbers = (flow["median"][0], plain["median"][0], flow["mean"][0], plain["mean"][0], flow["median"][1])
        return " | ".join(f"{number:.4f}" for number in (*numbers, plain["median"][1]))

    print(f"\n{table['rounds']} rounds, seconds of one:\n")
    print("| | flow, median | plain | flow, mean | plain | processor: flow, median | plain |\n|" + "---|" * 7)
    print(f"| a round | {cells(table['flow'], table['plain'])} |")
    for name, part in sorted(table["parts"].items(), key=lambda item: item[0] not in WORK):
        print(f"| {'work: ' if name in WORK else ''}{name} | {cells(part['flow'], part['plain'])} |")
    over = table["over"]
    print(f"\nOver the plain loop: median {over['median'][0]:.3f} s, mean {over['mean'][0]:.3f} s; processor", end=" ")
    print(f"{over['median'][1]:.3f} s and {over['mean'][1]:.3f} s.")
    print(f"The plain loop's work without the rest in the process: {table['alone_s']:.3f} s a round,", end=" ")
    print(f"beside it {table['beside_s']:.3f} s.")


def python(*arguments: str, home: Home) -> tuple[float, float, str]:
    """When a Python of its own was started, by the clock, how long it took, and what it printed."""
    begun, started = time.time(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"REVAL_HOME": str(home.root), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"python {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return begun, time.perf_counter() - started, done.stdout


def starts(config: str, overrides: list[str], rounds: int, home: Home) -> dict[str, dict[str, float]]:
    """Median seconds of each start, of its imports, and between the two."""
    command = ["-c", "from flows.cli import main; main()", "train", config]
    given = [argument for override in overrides for argument in ("--set", override)]

    def finished(turn: int) -> float:
        return python(*command, *given, home=home)[1]

    def planned(turn: int) -> float:
        return python(*command, *given, "--dry-run", home=home)[1]

    def resumed(turn: int) -> float:
        more = ["--set", f"run.iterations={rounds + turn + 1}"]
        begun = python(*command, *given, *more, home=home)[0]
        return first_stage(home) - begun

    measured = {}
    for name, start, imports in (
        ("a run goes on: until its first stage", resumed, "import flows.cli, flows.train"),
        ("a finished run again: the whole command", finished, "import flows.cli, flows.train"),
        ("--dry-run: the whole command", planned, "import flows.cli, flows.planning"),
    ):
        pairs = [(start(turn), python("-c", imports, home=home)[1]) for turn in range(STARTS)]
        measured[name] = {
            "seconds": statistics.median(seconds for seconds, _ in pairs),
            "imports": statistics.median(imported for _, imported in pairs),
            "beyond": statistics.median(seconds - imported for seconds, imported in pairs),
        }
    return measured


def first_stage(home: Home) -> float:
    """When the first stage of the newest attempt began, by the clock: its line in the log says when it was done."""
    newest = max(home.logs.glob("*/attempt-*.jsonl"), key=lambda path: path.stat().st_mtime)
    for line in newest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["logger"] == "tasks.stage" and " done in " in entry["message"]:
            took = float(entry["message"].rsplit(" done in ", 1)[1].removesuffix(" s"))
            return datetime.fromisoformat(entry["time"]).timestamp() - took
    sys.exit(f"{newest} tells of no stage.")


def main() -> None:
    """Measure and print; exit code 1 where a bar is missed or the two loops differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as of reval train")
    parser.add_argument("--models", type=Path, help="built-in models made earlier: the folder models of a root")
    parser.add_argument("--no-starts", action="store_true", help="leave the starts out")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    overrides = [*SETTINGS, f"run.iterations={arguments.rounds}", *arguments.overrides]
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "root")
        if arguments.models:
            shutil.copytree(arguments.models, home.models)
        configure(home)
        comparison = Comparison(load_config(ROOT / arguments.config, overrides), home)
        comparison.run()
        differences, table = comparison.differences(), comparison.table()
        show(table)
        print(f"\nLosses, policies and weights of the two: {'the same' if not differences else 'they differ'}.")
        results: dict[str, Any] = {"table": table, "differences": differences, "starts": {}}
        missed = differences[:3]
        over = table["over"]["median"][0]
        if over > BAR_S:
            missed.append(f"a round costs {over:.3f} s over the plain loop, the bar is {BAR_S:g} s")
        if not arguments.no_starts:
            results["starts"] = starts(arguments.config, overrides, arguments.rounds, home)
            print("\n| start | seconds | imports | beyond imports |\n|---|---|---|---|")
            for name, taken in results["starts"].items():
                print(f"| {name} | {taken['seconds']:.1f} | {taken['imports']:.1f} | {taken['beyond']:.1f} |")
                if taken["beyond"] > START_S:
                    missed.append(f"{name}: {taken['beyond']:.1f} s beyond imports, the bar is {START_S:g} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if missed:
        sys.exit("\n".join(["\nthe bar is missed", *missed]))
    print(f"\nthe bars are met: {over:.3f} s a round over the plain loop, at most {BAR_S:g}")


if __name__ == "__main__":
    main()
