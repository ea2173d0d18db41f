"""Retention rules on a root whose protected folders are known exactly."""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reval_core.config import Config, ProblemSource
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.policies import folder as folders
from reval_core.policies import pruning
from reval_core.policies.folder import OPTIMIZER, sweep
from reval_core.process import ProcessIdentity
from reval_core.store import Store, archive, evaluations, lineage, runs
from reval_core.store.outside import Choice, Saved, outside
from reval_core.upkeep import RetentionConfig
from tasks import prune

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from store_example import BASE, FORK, RUN, build

# RUN learns a_0, a_1, a_2; FORK leaves it after a_1 and learns b_2. All four have folders, each a checkpoint.
A0, A1, A2, B2 = "pol_run-a_0", "pol_run-a_1", "pol_run-a_2", "pol_run-b_2"
KEEP = RetentionConfig()
NEVER = {A1: f"{FORK} was forked from it", A2: f"newest checkpoint of {RUN}", B2: f"newest checkpoint of {FORK}"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The example's store with a folder for the base and for every policy; tests copy it."""
    found = Home(tmp_path_factory.mktemp("made"))
    build(found.database)
    (found.root / "models" / "base").mkdir(parents=True)
    for policy in (A0, A1, A2, B2):
        save(found, policy)
    Store(found.database).settle()
    return found


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    """The same as a root of the test's own."""
    return Home(Path(shutil.copytree(made.root, tmp_path / "root")))


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home.database)


def save(home: Home, policy: str, *, whole: bool = True) -> Path:
    """A policy's folder of 100 bytes of weights and 200 of optimizer state, known to the store."""
    folder = home.policies / policy
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"w" * 100)
    if whole:
        (folder / OPTIMIZER).write_bytes(b"o" * 200)
    with Store(home.database).write() as connection:
        connection.execute(
            "UPDATE store.policies SET folder = $f WHERE policy_id = $p", {"f": f"policies/{policy}", "p": policy}
        )
    return folder


def decisions(home: Home, rules: dict[str, RetentionConfig]) -> dict[str, tuple[bool, str]]:
    """(goes, why) by policy."""
    found = prune.plan(home, Store(home.database), rules).policies
    return {one.policy.policy_id: (one.goes, one.why) for one in found}


def going(home: Home, rules: dict[str, RetentionConfig]) -> set[str]:
    return {policy for policy, (goes, _) in decisions(home, rules).items() if goes}


def evaluated(store: Store, policy: str, benchmark: str, value: float, metric: str = "avg@2") -> None:
    estimate = SimpleNamespace(value=value, low=None, high=None)
    with store.write() as connection:
        evaluations.add(
            connection,
            evaluation_id=f"evl_{policy}_{benchmark}",
            policy_id=policy,
            benchmark=benchmark,
            benchmark_id="ben_0",
            batch_id="bat_0",
            verifier_id="ver_1",
            problem_count=1,
            samples_per_problem=2,
            settings={},
            metrics={metric: estimate},
        )


# -- policies ---------------------------------------------------------------------------------------------------------


def test_by_default_everything_stays(home: Home, store: Store) -> None:
    assert prune.rules_of(store) == {RUN: KEEP, FORK: KEEP}
    found = prune.plan(home, store, prune.rules_of(store))
    assert found.is_empty
    assert {one.policy.policy_id: one.why for one in found.policies} == {**NEVER, A0: "all checkpoints stay"}
    assert found.policies[0].policy.size == 300
    assert str(prune.carry_out(home, store, prune.rules_of(store))) == ""


def test_what_a_run_or_a_fork_rests_on_stays_whatever_the_rules_say(home: Home) -> None:
    strict = {RUN: RetentionConfig(keep_last=1), FORK: RetentionConfig(keep_last=1)}
    assert decisions(home, strict) == {
        A0: (True, "not kept by keep_last 1"),
        **{policy: (False, why) for policy, why in NEVER.items()},
    }


def test_a_reference_in_use_stays(home: Home, store: Store) -> None:
    with store.write() as connection:
        connection.execute(
            "UPDATE store.stages SET output = json_merge_patch(output, $output) WHERE output ->> 'policy_id' = $policy",
            {"output": json.dumps({"reference_policy_id": A0}), "policy": B2},
        )
    assert decisions(home, {RUN: RetentionConfig(keep_last=1)})[A0] == (False, f"{FORK} learns under it")


def test_the_newest_checkpoint_is_the_newest_that_is_whole(home: Home) -> None:
    (home.policies / A2 / OPTIMIZER).unlink()
    rules = {RUN: RetentionConfig(keep_last=1, keep_evaluated=False)}
    # RUN goes on from a_1 now, and a_2 was saved to be evaluated only
    assert decisions(home, rules)[A1] == (False, f"newest checkpoint of {RUN}")
    assert going(home, rules) == {A0, A2}
    assert going(home, {RUN: RetentionConfig(keep_last=1)}) == {A0}


@pytest.mark.parametrize(
    ("rule", "kept_by"),
    [
        ({"keep_last": 3}, "retention.keep_last 3"),
        ({"keep_last": 2}, None),
        ({"keep_every": 1}, "retention.keep_every 1"),
        ({"keep_every": 2}, None),
        ({"keep_best": "avg@2"}, None),
        ({"keep_last": 1, "keep_every": 1}, "retention.keep_every 1"),
    ],
)
def test_a_checkpoint_stays_that_one_rule_keeps(rule: dict[str, Any], kept_by: str | None, home: Home) -> None:
    goes, why = decisions(home, {RUN: RetentionConfig(**rule)})[A0]
    assert (goes, why) == ((False, kept_by) if kept_by else (True, f"not kept by {named(rule)}"))


def named(rule: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in rule.items())


def test_the_best_policy_stays_by_the_mean_over_the_benchmarks(home: Home, store: Store) -> None:
    for policy, a, b in ((A0, 0.9, 0.3), (A1, 0.2, 0.2), (A2, 0.4, 0.4)):
        evaluated(store, policy, "a", a)
        evaluated(store, policy, "b", b)
    why = f"retention.keep_best avg@2: 0.600, the best of {RUN}"
    assert decisions(home, {RUN: RetentionConfig(keep_best="avg@2")})[A0] == (False, why)
    assert going(home, {RUN: RetentionConfig(keep_best="b/avg@2")}) == {A0}
    why = f"retention.keep_best a/avg@2: 0.900, the best of {RUN}"
    assert decisions(home, {RUN: RetentionConfig(keep_best="a/avg@2")})[A0] == (False, why)


def test_of_equals_the_newest_is_the_best_and_partly_evaluated_ones_are_not_compared(home: Home, store: Store) -> None:
    rules = {RUN: RetentionConfig(keep_best="avg@2")}
    for policy in (A0, A2):
        evaluated(store, policy, "a", 0.5)
    assert going(home, rules) == {A0}
    evaluated(store, A1, "a", 0.1)
    evaluated(store, A1, "b", 0.1)  # the other two have not been seen on b
    assert going(home, rules) == {A0}
    evaluated(store, A0, "b", 0.2)
    assert going(home, rules) == set()


def test_a_policy_that_was_not_evaluated_on_all_benchmarks_is_not_the_best(home: Home, store: Store) -> None:
    evaluated(store, A0, "a", 0.9)
    for benchmark in ("a", "b"):
        evaluated(store, A2, benchmark, 0.2)
    assert going(home, {RUN: RetentionConfig(keep_best="avg@2")}) == {A0}


def test_an_evaluated_policy_goes_unless_it_is_the_best(home: Home, store: Store) -> None:
    (home.policies / A0 / OPTIMIZER).unlink()
    assert going(home, {RUN: RetentionConfig(keep_evaluated=False)}) == {A0}
    evaluated(store, A0, "a", 0.9)
    evaluated(store, A2, "a", 0.1)
    assert going(home, {RUN: RetentionConfig(keep_evaluated=False, keep_best="avg@2")}) == set()


def test_a_metric_that_no_evaluation_has_removes_nothing(home: Home, store: Store) -> None:
    evaluated(store, A0, "a", 0.9)
    rules = {RUN: RetentionConfig(keep_best="avg@16", keep_last=1)}
    with pytest.raises(
        ConfigError, match=r"keep_best is 'avg@16', but no evaluation of run-a has it; there are a/avg@2"
    ):
        prune.carry_out(home, store, rules)
    assert (home.policies / A0).is_dir()


def test_a_policy_that_could_not_be_learned_again_stays(home: Home, store: Store) -> None:
    rules = {RUN: RetentionConfig(keep_last=1)}
    assert going(home, rules) == {A0}
    everything = Saved(frozenset({A0, A1, A2, B2}), frozenset({A0, A1, A2, B2}))
    archive.archive(store, outside_of(store, everything))
    assert going(home, rules) == {A0}
    file = next((home.root / "archive").iterdir())
    file.rename(home.root / "away")
    assert decisions(home, rules)[A0][1].startswith("could not be learned again: payloads on the way")
    (home.root / "away").rename(file)
    archive.drop(store, everything, Choice())
    assert decisions(home, rules)[A0][1].startswith("could not be learned again: payloads on the way")


def outside_of(store: Store, saved: Saved) -> Any:
    with store.read() as connection:
        return outside(connection, saved, Choice())


def test_without_the_base_the_first_checkpoint_stays_and_a_later_one_may_go(home: Home) -> None:
    (home.root / "models" / "base").rmdir()
    rules = {RUN: RetentionConfig(keep_last=1)}
    assert decisions(home, rules)[A0] == (False, "could not be learned again: the base model's folder is gone")
    (home.policies / A2 / OPTIMIZER).unlink()
    rules = {RUN: RetentionConfig(keep_evaluated=False, keep_last=1)}
    assert going(home, rules) == {A2}  # from a_1


def test_payloads_that_the_same_rules_drop_keep_the_checkpoints_that_need_them(home: Home, store: Store) -> None:
    rules = {RUN: RetentionConfig(payloads="drop", keep_last=1)}
    assert going(home, rules) == set()
    done = prune.carry_out(home, store, rules)
    assert (done.dropped.payloads, done.policies) == (4, 0)
    assert (home.policies / A0).is_dir()


def test_a_removed_policy_is_forgotten_and_its_space_counted(home: Home, store: Store) -> None:
    done = prune.carry_out(home, store, {RUN: RetentionConfig(keep_last=1)})
    assert str(done) == "1 folder of policies removed (300 B)"
    assert {path.name for path in home.policies.iterdir()} == {A1, A2, B2}
    (row,) = store.query_live("SELECT folder FROM policies WHERE policy_id = $p", p=A0).to_pylist()
    assert row == {"folder": None}


class Killed(Exception):
    """Stands for a kill."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[None]:
    def end(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, end)
        yield


@pytest.mark.parametrize(
    ("owner", "name", "left"),
    [
        (pruning, "remove_policy", {A0, A1, A2, B2}),
        (Path, "rename", {A0, A1, A2, B2}),
        (folders, "_sync", {f"{A0}.tmp", A1, A2, B2}),
        (shutil, "rmtree", {f"{A0}.tmp", A1, A2, B2}),  # half removed, under a name that nobody takes for a policy
        (lineage, "set_folder", {A1, A2, B2}),
    ],
)
def test_a_kill_leaves_no_half_folder_and_none_that_is_never_removed(
    owner: Any, name: str, left: set[str], home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(monkeypatch, owner, name):
        prune.carry_out(home, store, {RUN: RetentionConfig(keep_last=1)})
    assert {path.name for path in home.policies.iterdir()} == left
    sweep(home.policies)
    prune.carry_out(home, store, {RUN: RetentionConfig(keep_last=1)})
    assert {path.name for path in home.policies.iterdir()} == {A1, A2, B2}


# -- payloads ---------------------------------------------------------------------------------------------------------


def test_each_run_has_its_own_rules(home: Home, store: Store) -> None:
    with store.write() as connection:
        rules = json.dumps({"retention": {"payloads": "archive", "after_rounds": 2, "keep_last": 1}})
        connection.execute(
            "UPDATE store.runs SET config = json_merge_patch(config, $rules) WHERE run_id = $run",
            {"rules": rules, "run": RUN},
        )
    rules = prune.rules_of(store)
    assert rules[RUN] == RetentionConfig(payloads="archive", after_rounds=2, keep_last=1)
    assert rules[FORK] == KEEP
    found = prune.plan(home, store, rules)
    assert [(one.run_id, one.dropped, one.found.num_rows, one.size) for one in found.payloads] == [
        (RUN, False, 3, (2 + 3 + 4) * 8)
    ]
    done = prune.carry_out(home, store, rules)
    assert (done.archived.payloads, done.policies) == (3, 1)
    assert prune.plan(home, store, rules).is_empty


# -- files ------------------------------------------------------------------------------------------------------------


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x" * 10)
    os.utime(path, (time.time() - days * 86400,) * 2)
    return path


@pytest.fixture
def left(home: Home, store: Store) -> dict[str, Path]:
    """A log, an artifact and a result of RUN, ten days old; its attempt has ended, FORK's goes on."""
    found = {
        "log": aged(home.logs / RUN / "attempt-1.jsonl", 10),
        "artifact": aged(home.mlflow_artifacts / "mlf" / "artifacts" / "report" / "report.html", 10),
        "result": aged(home.prefect / "storage" / f"generate_{RUN}_0", 10),
    }
    aged(home.logs / FORK / "attempt-1.jsonl", 10)
    aged(home.mlflow_artifacts / "mlf-fork" / "artifacts" / "report.html", 10)
    with store.write() as connection:
        for run_id, shown in ((RUN, "mlf"), (FORK, "mlf-fork")):
            runs.set_log_path(connection, run_id, 1, f"logs/{run_id}/attempt-1.jsonl")
            runs.set_mlflow_run(connection, run_id, shown)
    return found


@pytest.mark.parametrize(
    ("rule", "what"),
    [("log_days", "log"), ("mlflow_days", "artifact"), ("prefect_days", "result")],
)
def test_files_go_when_they_are_old_enough(
    rule: str, what: str, left: dict[str, Path], home: Home, store: Store
) -> None:
    assert prune.plan(home, store, {RUN: RetentionConfig(**{rule: 11})}).is_empty
    rules = {RUN: RetentionConfig(**{rule: 9})}
    (found,) = prune.plan(home, store, rules).files
    assert (found.size, found.why) == (10, f"retention.{rule} 9")
    assert str(prune.carry_out(home, store, rules)) == "1 file removed (10 B)"
    assert {name for name, path in left.items() if not path.exists()} == {what}
    if what == "log":
        sql = "SELECT run_id, log_path IS NULL AS gone FROM attempts ORDER BY run_id"
        assert store.query_live(sql).to_pylist() == [{"run_id": RUN, "gone": True}, {"run_id": FORK, "gone": False}]


def test_files_of_an_attempt_that_lives_stay(left: dict[str, Path], home: Home, store: Store) -> None:
    rules = {FORK: RetentionConfig(log_days=0, mlflow_days=0)}  # this process is its attempt
    assert prune.plan(home, store, rules).is_empty
    with store.write() as connection:
        connection.execute("UPDATE store.attempts SET pid = 2147483647 WHERE run_id = $run", {"run": FORK})
    assert {one.what for one in prune.plan(home, store, rules).files} == {"log files", "MLflow artifacts"}


# -- after a checkpoint -----------------------------------------------------------------------------------------------


@pytest.fixture
def after_checkpoint(home: Home, store: Store) -> Callable[[RetentionConfig], None]:
    """Applies rules as RUN does after a checkpoint."""

    def apply(rules: RetentionConfig) -> None:
        config = Config(problems=(ProblemSource(path="builtin:arithmetic/train"),), retention=rules)
        run = SimpleNamespace(
            run_id=RUN,
            attempt=1,
            config=config,
            home=home,
            store=store,
            progress=SimpleNamespace(step=lambda *told: None),
        )
        prune.prune(SimpleNamespace(run=run, iteration=2))  # type: ignore[arg-type]

    return apply


def test_after_a_checkpoint_only_the_runs_own_rules_count_and_are_recorded(
    after_checkpoint: Callable[[RetentionConfig], None], home: Home, store: Store
) -> None:
    after_checkpoint(KEEP)
    assert store.query_live("SELECT * FROM events WHERE kind = 'retention'").num_rows == 0
    after_checkpoint(RetentionConfig(payloads="archive", keep_last=1, keep_evaluated=False))
    assert {path.name for path in home.policies.iterdir()} == {A1, A2, B2}
    (row,) = store.query_live("SELECT message, iteration FROM events WHERE kind = 'retention'").to_pylist()
    assert row["iteration"] == 2
    assert row["message"].startswith("4 payloads archived (")
    assert row["message"].endswith("1 folder of policies removed (300 B)")


def test_what_fails_does_not_end_the_run(
    after_checkpoint: Callable[[RetentionConfig], None],
    home: Home,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rules = RetentionConfig(keep_last=1)
    with archive.alone(store):
        after_checkpoint(rules)
    assert "were not applied, the next checkpoint will do it: Another process archives" in caplog.text

    def refused(*args: Any) -> None:
        raise StoreError("no room")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(pruning, "remove", refused)
        after_checkpoint(rules)
    assert "no room" in caplog.text
    assert (home.policies / A0).is_dir()
    after_checkpoint(rules)
    assert not (home.policies / A0).exists()


def test_this_process_is_the_living_attempt_of_the_example(store: Store) -> None:
    with store.read() as connection:
        assert runs.running_attempts(connection, FORK) == {1: ProcessIdentity.mine()}
        assert runs.running_attempts(connection, RUN) == {}
    assert BASE.startswith("pol_")
