"""Every objective trains by the same flow; the reference is scored where one is needed, and reset when it is due."""

import shutil

import pytest
from small_run import BATCH, ROUNDS, changed, lineage, rows, sampled, train, value

import flows.train
from reval_core.config import Config
from reval_core.errors import ConfigError
from reval_core.home import Home

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.long]
OBJECTIVES = {
    "reval": True,
    "tbrm": True,
    "regression": True,
    "vargrad": True,
    "logz": True,
    "grpo": False,
    "dr_grpo": False,
}
"""Name to whether trajectories are scored under a reference."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Home:
    """One root for all objectives."""
    return Home(tmp_path_factory.mktemp("objectives"))


@pytest.mark.parametrize(("name", "reference"), OBJECTIVES.items())
def test_an_objective_trains(name: str, reference: bool, small: Config, shared: Home) -> None:
    updates = (1, 2) if reference else (2, 0)
    config = changed(
        small, "run.iterations=2", f"run.name={name}", f"objective.use={name}",
        f"objective.updates.on_policy={updates[0]}", f"objective.updates.off_policy={updates[1]}",
    )  # fmt: skip
    done = train(config, shared)
    run = {"run": done.run_id}
    told = rows(shared, "SELECT * FROM rounds WHERE run_id = $run ORDER BY iteration", **run)
    assert [row["updates"] for row in told] == [sum(updates)] * 2
    assert [row["skipped_updates"] for row in told] == [0, 0]
    assert all(row["loss"] is not None and row["grad_norm"] is not None for row in told)
    assert all((row["reference_policy_id"] == told[0]["parent_policy_id"]) == reference for row in told)
    assert all((row["residual_mean"] is not None) == reference for row in told)
    kinds = rows(
        shared, "SELECT kind, count(*) AS n FROM updates WHERE policy_id = $p GROUP BY ALL", p=told[1]["policy_id"]
    )
    assert {row["kind"]: row["n"] for row in kinds} == {
        k: n for k, n in zip(("fresh", "replay"), updates, strict=True) if n
    }

    stages = rows(shared, "SELECT DISTINCT stage FROM stages WHERE run_id = $run", **run)
    assert ("score" in {row["stage"] for row in stages}) == reference
    scores = (
        "SELECT count(*) FROM store.reference_scores JOIN store.trajectories USING (trajectory_id) WHERE batch_id = $b"
    )
    assert value(shared, scores, b=told[1]["batch_id"]) == (BATCH if reference else 0)
    # the first round is sampled from the base policy, whatever is learned from it: it is paid for once
    assert value(shared, "SELECT count(*) FROM store.batches WHERE round = 0") == 1
    if name in ("vargrad", "logz"):
        groups = rows(
            shared, "SELECT update_index, problem_id, generated_round, count(*) AS n FROM update_members AS m "
            "JOIN store.trajectories USING (trajectory_id) WHERE policy_id = $p GROUP BY ALL", p=told[0]["policy_id"],
        )  # fmt: skip
        assert {row["n"] for row in groups} == {2}  # whole groups only


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_policy_gradients_take_nothing_from_the_buffer(name: str, small: Config, home: Home) -> None:
    with pytest.raises(ConfigError, match=f"off_policy is 2, but '{name}' learns from the fresh batch only"):
        train(changed(small, f"objective.use={name}"), home)
    assert not home.root.exists()


def test_the_reference_is_reset(small: Config, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second round, in a run that is stopped right after the reset, goes on, and then loses its policies."""
    tested, calibrate = [], flows.train.calibrate_reference

    def calibrated(here, reference, batch=None):  # type: ignore[no-untyped-def]
        passed_before = here.run.calibrated == reference
        calibrate(here, reference, batch)
        if here.run.calibrated == reference and not passed_before:
            sampled = value(home, "SELECT count(*) FROM store.batches WHERE round = $i", i=here.iteration)
            tested.append((here.iteration, reference, sampled))

    monkeypatch.setattr(flows.train, "calibrate_reference", calibrated)
    config = changed(small, "objective.reference_reset_every=2", "checkpoint.every=100")
    train(changed(config, f"run.iterations={ROUNDS - 1}"), home)
    done = train(config, home)

    told = rows(home, "SELECT * FROM rounds ORDER BY iteration")
    base, second = told[0]["parent_policy_id"], told[1]["policy_id"]
    assert [row["reference_policy_id"] for row in told] == [base, base, second, second]
    # at each start and after the reset; before anything is sampled, but for the first round
    assert tested == [(0, base, 1), (2, second, 0), (3, second, 0)]
    scored = rows(
        home, "SELECT reference_policy_id AS reference, t.iteration, count(*) AS n FROM store.reference_scores "
        "JOIN trajectories AS t USING (trajectory_id) GROUP BY ALL",
    )  # fmt: skip
    assert {(row["reference"], row["iteration"]): row["n"] for row in scored} == dict.fromkeys(
        [(base, 0), (base, 1), *((second, i) for i in range(ROUNDS))], BATCH
    )
    (rescored,) = rows(home, "SELECT * FROM stages WHERE stage = 'rescore'")
    drawn = rows(home, "SELECT max(age) AS age FROM update_members WHERE iteration = 2")
    assert (rescored["iteration"], drawn[0]["age"]) == (2, 1)  # older ones are drawn, under the new reference
    first_use = "SELECT min(m.linked_at) FROM store.stage_links AS m WHERE stage = 'learn' AND iteration = 2"
    assert rescored["linked_at"] < value(home, first_use)
    saved = rows(home, "SELECT iteration FROM policies WHERE folder IS NOT NULL AND kind = 'learned' ORDER BY 1")
    assert [row["iteration"] for row in saved] == [1, 2, 3]  # a reference is saved, though no checkpoint was due

    before = lineage(home, done.run_id), (done.checkpoint / "model.safetensors").read_bytes()
    shutil.rmtree(home.policies)
    with sampled(monkeypatch) as seen:
        again = train(config, home)  # all four rounds are learned again, two of them under a learned reference
    assert seen == []
    assert (lineage(home, again.run_id), (again.checkpoint / "model.safetensors").read_bytes()) == before
