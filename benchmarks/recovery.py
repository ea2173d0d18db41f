"""Recovery without generating: one run, started by the same command again and again and killed each time.

    python benchmarks/recovery.py                                       # 50 kills of the quickstart, half an hour
    python benchmarks/recovery.py --state FOLDER --slice 540            # in slices; exit code 75: call it again

Each start is a real `reval train` with Prefect's server and MLflow. At a random instant after its first stage has begun
SIGKILL ends the worker (as the system does when memory runs out), the command (whose worker the kernel ends then), or
everything that it has started at once (as a power cut does, but for what the system still had to write: see
benchmarks/faults.py). The next start follows at once. After the last kill the run goes on undisturbed, and what it has
is compared with a run that nobody disturbed: responses, verdicts, updates, evaluations, MLflow's points, weights.

What is generated is counted where it is made: the engine notes each response that it finished before the run sees it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from reval_core.config import Config  # noqa: E402
from reval_core.config_files import load_config  # noqa: E402
from reval_core.home import Home  # noqa: E402
from reval_core.store import Store  # noqa: E402

GO_ON = 75
"""Exit code when the slice is over and work is left (EX_TEMPFAIL)."""
START_S, WHOLE_S, KILLED_S, END_S = 180.0, 300.0, 90.0, 60.0
"""Seconds at most to the first stage; that a slice must have left for a whole run, and for one that is killed; in which
ends what a killed start had started."""
AIMED_S, REPORT_S = 30.0, 0.5
"""Seconds that an aimed kill waits for a response at most; and that the run's last stage has at most."""
WHO = ("worker", "command", "everything")
INSTRUMENTED = """
import json, os
from flows import cli

train = cli._train

def note(*event):
    os.write(journal, json.dumps(event).encode() + b"\\n")

def instrumented(*given):  # called in the worker: the libraries must not be loaded before it is forked
    global journal
    import flows.train as flow
    from reval_core.rollouts.transformers_engine import TransformersEngine as Engine
    from tasks.progress import Progress
    from tasks.stage import Stage
    journal = os.open(os.environ["RECOVERY_JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    load, sample, run, step = Engine.load, Engine.sample, Stage._run, Progress.step

    def loading(self, policy_id, model):
        self.policy_id = policy_id
        load(self, policy_id, model)

    def sampling(self, requests, settings):
        for done in sample(self, requests, settings):
            asked = done.request
            note("sample", self.policy_id, asked.problem_id, asked.sample_index, asked.seed)
            yield done

    def running(self, here, *more):
        note("stage", self.name, here.iteration, os.getpid())
        output = run(self, here, *more)
        note("end", self.name)
        return output

    def stepping(self, what, *counts):
        if what == "learning again":
            note("part", what, *counts)
        step(self, what, *counts)

    def told(name, function):
        def calling(*arguments, **named):
            note("part", name, 0, 1)
            function(*arguments, **named)
            note("part", name, 1, 1)
        return calling

    Engine.load, Engine.sample, Stage._run, Progress.step = loading, sampling, running, stepping
    for name, shown in {"track": "MLflow", "publish": "snapshot", "show_artifact": "Prefect's page"}.items():
        setattr(flow, name, told(shown, getattr(flow, name)))
    return train(*given)

cli._train = instrumented
cli.main()
"""
"""The command line, whose worker notes stages and finished responses in the file RECOVERY_JOURNAL."""
TABLES = {
    "verdicts": "SELECT * EXCLUDE (seconds, graded_at) FROM store.verdicts",
    "reference scores": "SELECT * FROM store.reference_scores",
    "replay entries": "SELECT * FROM store.replay_entries",
    "updates": "SELECT * FROM store.updates",
    "members of updates": "SELECT * FROM store.update_trajectories",
    "evaluations": "SELECT policy_id, benchmark_id, m.* EXCLUDE (evaluation_id) FROM store.evaluations "
    "JOIN store.evaluation_metrics AS m USING (evaluation_id)",
    "policies": "SELECT policy_id, weights_checksum, updates_done FROM store.policies",
    "rounds": "SELECT * FROM store.rounds",
    "stage links": "SELECT run_id, iteration, stage, slot, stage_key FROM store.stage_links WHERE stage <> 'report'",
}
"""Rows that the disturbed run must have as often as the other one, times aside."""
RESPONSES = """
SELECT t.trajectory_id, t.seed, t.finish_reason, p.response_ids, p.completion, t.behaviour_logprob
FROM store.trajectories AS t LEFT JOIN store.payloads AS p USING (trajectory_id)
"""
STORED = """
SELECT b.policy_id, t.problem_id, t.sample_index, t.seed
FROM store.trajectories AS t JOIN store.batches AS b USING (batch_id)
"""
SECONDS = """
SELECT epoch(max(committed_at) FILTER (stage = 'learn') - min(committed_at)), avg(seconds) FILTER (stage = 'learn')
FROM store.stages
"""
"""Of all rounds, and of learning in one."""
NEWEST = """
SELECT avg(seconds) FROM (
    SELECT seconds FROM store.stages WHERE stage = 'learn' ORDER BY committed_at DESC LIMIT 3
)
"""
ROUNDING = 1e-5
"""Nats. A response that is sampled again may have a log-probability with another last bit of float32."""
TIMED = ("seconds", "per_second", "rounds_per")
"""What stands in the names of metrics that tell times."""

Key = tuple[Any, ...]
"""(policy, problem, sample index, seed): what names a response."""


@dataclass
class Killed:
    """One start that was killed."""

    who: str
    stage: str
    """The stage under way, and whether it was learning again; or between stages."""
    rounds: int
    """Rounds that were learned by then."""
    after_s: float
    """Seconds after the first stage began."""
    start_s: float
    """Seconds from the start to the first stage."""
    sampled: int
    """Responses that it finished."""
    lost: int
    """Those of them that are not stored."""
    again: int
    """Those of them that were stored before it began."""
    misplaced: int
    """Lost ones that were not of the stage under way."""


@dataclass
class State:
    """What has been done so far, kept as JSON."""

    seed: int
    killed: list[Killed] = field(default_factory=list)
    needed: int = 0
    """Responses that the undisturbed run finished; 0 before its end."""
    last: dict[str, int] | None = None
    """The last start, which nobody disturbed: sampled and again."""
    left_behind: int = 0
    """Processes of killed starts that outlived the next start."""

    @classmethod
    def read(cls, path: Path, seed: int) -> State:
        """The state in the file, or a new one."""
        if not path.exists():
            return cls(seed)
        found = json.loads(path.read_text())
        return cls(**found | {"killed": [Killed(**one) for one in found["killed"]]})

    def write(self, path: Path) -> None:
        """Replace the file."""
        path.with_suffix(".new").write_text(json.dumps(asdict(self), indent=1))
        path.with_suffix(".new").replace(path)


class Journal:
    """What the worker of one start noted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[list[Any]]:
        """Every line that was written whole."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1]]

    def samples(self) -> list[Key]:
        """The responses that the engine finished."""
        return [tuple(event[1:]) for event in self.events() if event[0] == "sample"]

    def newest(self) -> str:
        """The last lines."""
        with open(self.path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 500))
            return file.read().decode()

    def under_way(self) -> tuple[str, set[Key]]:
        """The stage that has begun and not ended, and the responses that it finished."""
        name, samples = "between stages", set[Key]()
        for kind, *values in self.events():
            if kind == "stage":
                name, samples = values[0], set()
            elif kind == "end":
                name, samples = "between stages", set()
            elif kind == "part":  # (what, done, total)
                name = name.partition(",")[0] + (f", {values[0]}" if values[1] < values[2] else "")
            else:
                samples.add(tuple(values))
        return name, samples


@dataclass(frozen=True)
class Chain:
    """The two runs, and the state of the disturbed one.

    Args:
        folder: where both roots, the journals and the state are.
        config: file of the configuration.
        kills: how many.
        aimed: every second one falls, after its random time, while the engine gives responses.
    """

    folder: Path
    config: Path
    kills: int
    aimed: bool = False

    @property
    def plain(self) -> Home:
        """Root of the run that nobody disturbs."""
        return Home(self.folder / "plain")

    @property
    def chain(self) -> Home:
        """Root of the run that is killed."""
        return Home(self.folder / "chain")

    @cached_property
    def settings(self) -> Config:
        """The configuration."""
        return load_config(self.config, [])

    def start(self, home: Home, name: str) -> tuple[subprocess.Popen[bytes], Journal]:
        """`reval train`, in a process group of its own."""
        journal = Journal(self.folder / f"{name}.jsonl")
        journal.path.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", INSTRUMENTED, "train", str(self.config)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=kept | {"REVAL_HOME": str(home.root), "RECOVERY_JOURNAL": str(journal.path)},
            )
        return process, journal

    def whole(self, home: Home, name: str) -> list[Key]:
        """One start that nobody disturbs, and the responses that it finished."""
        process, journal = self.start(home, name)
        if process.wait():
            sys.exit(f"{name} ended with code {process.returncode}:\n{self._tail(name)}")
        return journal.samples()

    def prepare(self, state: State) -> None:
        """The run that nobody disturbs; the other one takes its base model."""
        state.needed = len(self.whole(self.plain, "plain"))
        if self.plain.models.exists():
            shutil.copytree(self.plain.models, self.chain.models, dirs_exist_ok=True)

    def kill(self, state: State, moments: random.Random) -> list[psutil.Process]:
        """One start that is killed; the processes that it had."""
        number = len(state.killed) + 1
        who, before, began = moments.choice(WHO), stored(self.chain), time.monotonic()
        after_s, last_s = moments.uniform(0.0, self._most(state)), moments.uniform(0.0, REPORT_S)
        process, journal = self.start(self.chain, f"kill-{number}")
        worker, first = started_stage(process, journal), time.monotonic()
        if worker is not None:
            _wait(process, journal, first + after_s, last_s)
            if self.aimed and number % 2 == 0:
                _wait(process, journal, time.monotonic() + AIMED_S, 0.0, for_sample=True)
        killed_s = time.monotonic() - first
        if worker is None or process.returncode is not None:
            process.kill()
            sys.exit(f"start {number} could not be killed, code {process.poll()}:\n{self._tail(f'kill-{number}')}")
        started = end(process, worker, who)
        stage, newest = journal.under_way()
        samples, now = journal.samples(), stored(self.chain)
        lost = [key for key in samples if key not in now]
        state.killed.append(
            Killed(
                who=who,
                stage=stage,
                rounds=rounds(self.chain),
                after_s=round(killed_s, 3),
                start_s=round(first - began, 3),
                sampled=len(samples),
                lost=len(lost),
                again=sum(key in before for key in samples) + len(samples) - len(set(samples)),
                misplaced=sum(key not in newest for key in lost),
            )
        )
        return started

    def finish(self, state: State) -> None:
        """The last start, undisturbed."""
        before = stored(self.chain)
        samples = self.whole(self.chain, "last")
        again = sum(key in before for key in samples) + len(samples) - len(set(samples))
        state.last = {"sampled": len(samples), "again": again}

    def _most(self, state: State) -> float:
        """Seconds within which the kill falls: so many that the kills are spread over the whole run."""
        total, done = self.settings.run.iterations, rounds(self.chain)
        ((all_s, learn_s),) = _fetch(self.plain, SECONDS)
        if done:  # the machine may be less busy by now
            ((now_s,),) = _fetch(self.chain, NEWEST)
            all_s, learn_s = all_s * min(1.0, now_s / learn_s), min(learn_s, now_s)
        again = done % self.settings.checkpoint.every * learn_s
        return float(max(1.0, again + 2.0 * all_s * (1 - done / total) / (self.kills - len(state.killed) + 1)))

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]


def started_stage(process: subprocess.Popen[bytes], journal: Journal, name: str | None = None) -> int | None:
    """Wait until a stage, of the name, begins; the worker's process number, or None when the start ended before."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        for kind, *values in journal.events():
            if kind == "stage" and name in (None, values[0]):
                return int(values[2])
        time.sleep(0.02)
    return None


def _wait(
    process: subprocess.Popen[bytes], journal: Journal, until: float, last_s: float, *, for_sample: bool = False
) -> None:
    """Wait until a time; at most so many seconds of the last stage, after which nothing is left to kill."""
    while process.poll() is None and time.monotonic() < until:
        newest = journal.newest()
        if '["stage", "report"' in newest:
            until, last_s = min(until, time.monotonic() + last_s), float("inf")
        if for_sample and newest.rpartition("\n[")[2].startswith('"sample"'):
            return
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes], worker: int, who: str) -> list[psutil.Process]:
    """SIGKILL; returns what the start had started, once its worker is gone."""
    command = psutil.Process(process.pid)
    started = [command, *command.children(recursive=True)]
    working = next(one for one in started if one.pid == worker)
    chosen = {"worker": [working], "command": [command], "everything": started}[who]
    for one in chosen:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs([working], timeout=END_S)
    return started


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended within `END_S`."""
    deadline = time.monotonic() + END_S
    while (processes := list(filter(_runs, processes))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return processes


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # it may end between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def stored(home: Home) -> set[Key]:
    """The responses in the store."""
    return set(_fetch(home, STORED)) if home.database.exists() else set()


def rounds(home: Home) -> int:
    """Rounds that are learned."""
    query = "SELECT count(*) FROM store.stage_links WHERE stage = 'learn'"
    return int(_fetch(home, query)[0][0]) if home.database.exists() else 0


def _fetch(home: Home, query: str) -> list[Key]:
    with Store(home.database).read() as connection:
        return connection.execute(query).fetchall()


def compare(chain: Chain, state: State) -> dict[str, int]:
    """Everything that must be 0 at the end, by name."""
    ours, theirs = chain.chain, chain.plain
    mine, whole = _fetch(ours, RESPONSES), {row[0]: row for row in _fetch(theirs, RESPONSES)}
    names = Counter(row[0] for row in mine)
    shown, expected = points(ours), points(theirs)
    sampled = sum(one.sampled for one in state.killed) + (state.last or {"sampled": 0})["sampled"]
    statuses = Counter(status for (status,) in _fetch(ours, "SELECT status FROM store.attempts"))
    found = {
        "stored responses generated again": sum(one.again for one in state.killed)
        + (state.last or {"again": 0})["again"],
        "lost responses of other stages than the killed one": sum(one.misplaced for one in state.killed),
        "responses generated beside the needed and the lost": abs(
            sampled - state.needed - sum(one.lost for one in state.killed)
        ),
        "responses missing": len(whole.keys() - names.keys()),
        "responses that the other run has not": len(names.keys() - whole.keys()),
        "responses doubled": sum(count - 1 for count in names.values()),
        "responses with other tokens or seeds": sum(row[0] in whole and row[:-1] != whole[row[0]][:-1] for row in mine),
        "log-probabilities that differ by more than rounding": sum(gap > ROUNDING for gap in gaps(chain)),
        "MLflow runs too many": abs(len({run for run, *_ in shown}) - 1),
        "MLflow points missing": len({key[1:] for key in expected} - {key[1:] for key in shown}),
        "MLflow points that the other run has not": len({key[1:] for key in shown} - {key[1:] for key in expected}),
        "MLflow points doubled": sum(len(values) - 1 for values in shown.values()),
        "MLflow points that differ by more than rounding, times aside": _differ(shown, expected),
        "attempts not recorded as what they were": abs(statuses["crashed"] - len(state.killed))
        + abs(statuses["completed"] - 1),
        "files left half done or waiting": sum(
            ".tmp" in path.name or path.parent.name == "spool" for path in ours.root.rglob("*") if path.is_file()
        ),
        "processes left behind": state.left_behind,
    }
    for name, query in TABLES.items():
        here, there = Counter(map(repr, _fetch(ours, query))), Counter(map(repr, _fetch(theirs, query)))
        found[f"{name} missing, doubled or other"] = (here - there).total() + (there - here).total()
    for name in ("model.safetensors", "optimizer.safetensors"):
        found[f"last {name} with other bytes"] = int(checksum(ours, name) != checksum(theirs, name))
    return found


def gaps(chain: Chain) -> list[float]:
    """By how many nats the log-probability of each response differs between the runs."""
    expected = {row[0]: row[-1] for row in _fetch(chain.plain, RESPONSES)}
    return [abs(row[-1] - expected.get(row[0], row[-1])) for row in _fetch(chain.chain, RESPONSES)]


def checksum(home: Home, name: str) -> str:
    """SHA-256 of a file of the last saved policy."""
    query = "SELECT folder FROM store.policies WHERE kind = 'learned' AND folder IS NOT NULL ORDER BY updates_done"
    (folder,) = _fetch(home, query)[-1]
    return hashlib.sha256((home.root / folder / name).read_bytes()).hexdigest()


def points(home: Home) -> dict[tuple[str, str, int], list[float]]:
    """(run, key, step) to the values there, of every MLflow point but those that tell how busy the machine was."""
    shown: dict[tuple[str, str, int], list[float]] = {}
    with closing(sqlite3.connect(f"file:{home.root / 'mlflow.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT run_uuid, key, step, value FROM metrics WHERE key NOT LIKE 'system/%'")
        for run, key, step, value in rows:
            shown.setdefault((run, key, step), []).append(value)
    return shown


def _differ(shown: dict[tuple[str, str, int], list[float]], expected: dict[tuple[str, str, int], list[float]]) -> int:
    other = {key[1:]: values for key, values in expected.items()}
    return sum(
        not _same_but_for_rounding(values, other[key[1:]])
        for key, values in shown.items()
        if key[1:] in other and not any(word in key[1] for word in TIMED)
    )


def _same_but_for_rounding(values: list[float], others: list[float]) -> bool:
    """Some points are means of log-probabilities, whose last bit may be another."""
    return len(values) == len(others) and all(
        math.isclose(value, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
        for value, other in zip(values, others, strict=True)
    )


def report(state: State, found: dict[str, int]) -> Iterator[str]:
    """The tables."""
    killed = state.killed
    yield f"| stage under way | {' | '.join(WHO)} | kills | responses lost |"
    yield "|---" * (len(WHO) + 3) + "|"
    for stage, count in Counter(one.stage for one in killed).most_common():
        those = [one for one in killed if one.stage == stage]
        by = [str(sum(one.who == who for one in those)) for who in WHO]
        yield f"| {stage} | {' | '.join(by)} | {count} | {sum(one.lost for one in those)} |"
    sampled = sum(one.sampled for one in killed) + (state.last or {"sampled": 0})["sampled"]
    lost = sum(one.lost for one in killed)
    spread = Counter(one.rounds // 5 * 5 for one in killed)
    yield f"\n{len(killed)} kills, {len(killed) + 1} starts; kills by rounds done, in fives: " + ", ".join(
        f"{first}-{first + 4}: {spread[first]}" for first in sorted(spread)
    )
    yield f"seconds from a start to its first stage: {_middle([one.start_s for one in killed]):.1f} (median)"
    yield f"responses needed {state.needed:,}, generated {sampled:,}, of which lost before they were stored {lost:,}\n"
    yield "| must be 0 | found |"
    yield "|---|---|"
    for name, count in found.items():
        yield f"| {name} | {count} |"


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def run(chain: Chain, seed: int, slice_s: float) -> dict[str, int] | None:
    """Work until all is done, or for so many seconds; returns what must be 0, None where work is left."""
    chain.folder.mkdir(parents=True, exist_ok=True)
    path, until = chain.folder / "state.json", time.monotonic() + slice_s
    state, started = State.read(path, seed), list[psutil.Process]()
    while state.last is None:
        whole = not state.needed or len(state.killed) >= chain.kills
        if time.monotonic() + (WHOLE_S if whole else KILLED_S) > until:
            return None
        if not state.needed:
            chain.prepare(state)
        elif whole:
            chain.finish(state)
            state.left_behind += len(alive(started))
        else:
            moments = random.Random(f"{state.seed} {len(state.killed)}")
            before, started = started, chain.kill(state, moments)
            state.left_behind += len(alive(before))
            print(f"kill {len(state.killed)}: {state.killed[-1]}", file=sys.stderr, flush=True)
        state.write(path)
    found = compare(chain, state)
    print("\n".join(report(state, found)))
    apart = [gap for gap in gaps(chain) if gap]
    print(
        f"\nlog-probabilities not equal to the last bit: {len(apart)}, at most {max(apart, default=0.0):.1g} nats apart"
    )
    return found


def main() -> None:
    """Run the chain, or a slice of it, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--aimed", action="store_true", help="let every second kill fall while responses are sampled")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who is killed")
    parser.add_argument("--slice", type=float, default=float("inf"), help="seconds to work at most, 400 or more")
    parser.add_argument("--state", type=Path, help="keep everything here and go on there; needed for slices")
    given = parser.parse_args()
    if given.slice < float("inf") and (given.state is None or given.slice < WHOLE_S):
        parser.error(f"a slice needs --state, and {WHOLE_S:g} s at least")
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain((given.state or Path(folder)).resolve(), given.config.resolve(), given.kills, given.aimed)
        found = run(chain, given.seed, given.slice)
    if found is None:
        print("the slice is over; the same command goes on", file=sys.stderr)
        sys.exit(GO_ON)
    sys.exit("recovery is not what it should be" if any(found.values()) else 0)


if __name__ == "__main__":
    main()
