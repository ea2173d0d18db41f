"""What the page of a run says beside its figures: what was run, before and after, samples, resources, settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reval_core.config import Config
from reval_core.config_files import differences, parse_config
from reval_core.evaluation.metrics import majority_scores, paired_difference, pass_scores
from reval_core.identity import short
from reval_core.reporting.html import Answer, Interval, Page, Picture, Sample, Section, Table, literal
from reval_core.store import evaluations, health, reports, runs
from tasks.best import best_of
from tasks.evaluate import current_evaluations
from tasks.run import Run

SAMPLES = 5
"""Responses of each kind that are shown."""
EVENTS = 30
"""Newest events that are shown."""
KINDS = {
    "best": "Best: rewarded, and the least likely when they were sampled",
    "worst": "Worst: not rewarded, and the likeliest when they were sampled",
    "failed": "Not graded: timeouts, errors and rejected answers",
}


def page_of(run: Run, pictures: Sequence[Picture]) -> Page:
    """The page of a run.

    Args:
        run: an open one.
        pictures: its figures, in order.
    """
    with run.store.read() as connection:
        tokens = reports.tokens(connection, run.run_id)
        created = reports.created_at(connection, run.run_id)
    best = best_of(run)
    uses = tokens["members"] / tokens["responses"] if tokens["responses"] else None
    return Page(
        kind="ReVal run report",
        title=run.record.name,
        identity=run.run_id,
        created=f"begun {created:%Y-%m-%d %H:%M} UTC",
        facts=[
            ("Rounds", run.iterations_done()),
            ("Responses", tokens["responses"]),
            ("Tokens generated", tokens["generated"]),
            ("Learned from each response", None if uses is None else f"{uses:.1f} times"),
            ("Objective", f"{run.config.objective.use}, β {run.config.objective.beta:g}"),
            ("Base", Path(run.config.model.path).name),
            ("Last policy", short(run.policy_after(run.iterations_done() - 1))),
            ("Best policy", None if best is None else short(best.policy_id)),
            ("Best by", None if best is None else best.metric),
            ("Value of the best", None if best is None else f"{best.value:.3f} after {best.rounds} rounds"),
            ("Parent run", run.record.parent_run_id or "none"),
        ],
        sections=[
            Section("Before and after", BEFORE_AND_AFTER, tables=[*_before_and_after_tables(run), *_overlap(run)]),
            Section("Figures", pictures=pictures),
            Section("Samples", SAMPLE_NOTE, samples=_samples(run)),
            Section("Resources", tables=_resources(run, tokens)),
            _settings(run),
        ],
    )


BEFORE_AND_AFTER = (
    "Base policy and last policy on the same problems under the same noise, with 95 % intervals over problems. The "
    "difference is paired by problem."
)
SAMPLE_NOTE = (
    "Responses of the newest round, one for a problem, with the verdict that the run learned from and the verifier's "
    "path to its judgement."
)


def _before_and_after_tables(run: Run) -> list[Table]:
    """One for each benchmark."""
    last = run.iterations_done() - 1
    tables = []
    found: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for row in current_evaluations(run):
        found.setdefault(row["benchmark"], {})[row["metric"], row["iteration"]] = row
    for benchmark, cells in found.items():
        metrics = list(dict.fromkeys(metric for metric, _ in cells))
        ends = [next((cells[m, at] for m in metrics if (m, at) in cells), None) for at in (-1, last)]
        ids = [end["evaluation_id"] for end in ends if end is not None]
        changes = _changes(run, *ids) if len(ids) == 2 and last >= 0 else {}
        rows = [
            [m.replace("_", " "), _cell(cells.get((m, -1))), _cell(cells.get((m, last))), changes.get(m)]
            for m in metrics
        ]
        tables.append(Table(Path(benchmark).name, ["", "before", "after", "difference"], rows, half=len(found) > 1))
    return tables


def _overlap(run: Run) -> list[Table]:
    rows = [
        [Path(one.benchmark).name, one.problems, len(one.exact), len(one.near), one.example[:200]]
        for one in run.overlap
    ]
    columns = ["benchmark", "its problems", "training problems in it", "near one of it", "for example"]
    return [Table("Training problems that stand in a benchmark", columns, rows, note=OVERLAP)] if rows else []


OVERLAP = (
    "In it: the same question, letters, digits and signs compared. Near: at least half of the training question's runs "
    "of eight words stand in one question of the benchmark."
)


def _cell(row: dict[str, Any] | None) -> Interval | None:
    return None if row is None else Interval(row["value"], row["low"], row["high"])


def _changes(run: Run, before: str, after: str) -> dict[str, Interval]:
    """Metric to the paired difference of two evaluations of one benchmark."""
    with run.store.read() as connection:
        a, b = (evaluations.samples(connection, name) for name in (before, after))
    k = a.correct.shape[1]
    scores = {
        f"avg@{k}": [side.correct.mean(axis=1) for side in (b, a)],
        f"pass@{k}": [pass_scores(side.correct, k) for side in (b, a)],
        f"maj@{k}": [majority_scores(side.correct, side.answers) for side in (b, a)],
    }
    found = {metric: paired_difference(*sides) for metric, sides in scores.items()}
    return {metric: Interval(e.value, e.low, e.high, signed=True) for metric, e in found.items()}


def _samples(run: Run) -> list[tuple[str, list[Sample]]]:
    with run.store.read() as connection:
        rows = reports.newest_responses(connection, run.run_id, SAMPLES)
    return [(heading, [_sample(run, row) for row in rows if row["kind"] == kind]) for kind, heading in KINDS.items()]


def _sample(run: Run, row: dict[str, Any]) -> Sample:
    facts = [
        ("reward", row["reward"]),
        ("verdict", f"{row['details']} (tier {row['tier']})"),
        ("length", f"{row['response_tokens']} tokens" + (", cut" if row["truncated"] else "")),
        ("log-probability", f"{row['behaviour_logprob']:.1f} nats"),
        ("learned from", f"{row['times_used']} times"),
    ]
    steps = run.grader.explain(row["gold"], row["completion"]) if row["gold"] and row["completion"] else []
    answer = Answer(
        row["completion"],
        row["status"],
        row["answer"],
        facts=facts,
        steps=[(step.tier, step.said) for step in steps],
    )
    return Sample(row["question"], row["gold"], [answer], place=f"round {row['iteration']}")


def _resources(run: Run, tokens: dict[str, Any]) -> list[Table]:
    with run.store.read() as connection:
        stages = reports.stages(connection, run.run_id)
        attempts = reports.attempts(connection, run.run_id)
        events = reports.events(connection, run.run_id, EVENTS)
        breaches = health.summary(connection, run.run_id)
    total = sum(row["seconds"] for row in stages)
    made = [
        (
            "response tokens generated",
            f"{tokens['generated']:,}",
            _rate(tokens["generated"], tokens["seconds_generate"]),
        ),
        ("response tokens learned from", f"{tokens['learned']:,}", _rate(tokens["learned"], tokens["seconds_learn"])),
        ("saved policies", _saved(run), None),
        ("database", _size(run.home.database.stat().st_size), None),
    ]
    versions = sorted(run.record.versions.items())
    return [
        Table(
            "Stages",
            ["stage", "executed", "found done", "seconds", "share"],
            [
                [row["stage"], row["executed"], row["found"], row["seconds"], _percent(row["seconds"], total)]
                for row in stages
            ],
            note="Wall time of what this run and its ancestors executed; what was found done cost nothing again.",
            half=True,
        ),
        Table("Throughput and space", ["what", "amount", "rate"], made, half=True),
        Table(
            "Attempts",
            ["attempt", "status", "started, UTC", "seconds", "device", "message"],
            [list(row.values()) for row in attempts],
        ),
        *_told("Out of bounds", ["metric", "rounds", "first", "last", "value", "bound", "action"], breaches),
        *_told("Events", ["iteration", "kind", "message"], events),
        Table("Versions", ["what", "version"], [[key, str(value)] for key, value in versions], folded=True),
    ]


def _told(title: str, columns: list[str], rows: list[dict[str, Any]]) -> list[Table]:
    return [Table(title, columns, [[row[name] for name in columns] for row in rows])] if rows else []


def _rate(amount: int, seconds: float) -> str | None:
    return f"{amount / seconds:,.0f} a second" if seconds else None


def _percent(part: float, whole: float) -> str | None:
    return f"{part / whole:.0%}" if whole else None


def _saved(run: Run) -> str:
    """Count and size of the run's saved policies."""
    rows = run.store.query_live(
        "SELECT DISTINCT p.folder FROM rounds AS r JOIN policies AS p USING (policy_id) "
        "WHERE r.run_id = $run_id AND p.folder IS NOT NULL",
        run_id=run.run_id,
    ).to_pylist()
    folders = [folder for row in rows if (folder := run.home.root / row["folder"]).is_dir()]
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    return f"{len(folders)}, {_size(size)}"


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _settings(run: Run) -> Section:
    """What differs from the parent and from the defaults, then everything."""
    own, tables = run.config.flat(), []
    if run.record.parent_run_id is not None:
        with run.store.read() as connection:
            parent = runs.find(connection, run.record.parent_run_id)
        if parent is not None:
            before = parse_config(dict(parent.config)).flat()
            rows = [[key, *map(literal, pair)] for key, pair in differences(before, own).items()]
            tables.append(Table("Other than in the parent run", ["key", "parent", "this run"], rows))
    plain = Config(problems=run.config.problems).flat()
    rows = [[key, *map(literal, pair)] for key, pair in differences(plain, own).items()]
    tables.append(Table("Other than the defaults", ["key", "default", "this run"], rows))
    return Section("Settings", tables=tables, settings=own)


def before_and_after(run: Run) -> list[tuple[str, Any, Any]]:
    """(what, base policy, last policy) of every benchmark and metric of the run; None where one was not evaluated."""
    found = current_evaluations(run)
    last = run.iterations_done() - 1
    cells = {(row["benchmark"], row["metric"], row["iteration"]): str(_cell(row)) for row in found}
    names = list(dict.fromkeys((row["benchmark"], row["metric"]) for row in found))
    return [(f"{b} {m}", cells.get((b, m, -1)), cells.get((b, m, last))) for b, m in names]
