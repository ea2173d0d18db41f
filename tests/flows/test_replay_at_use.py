"""Baselines and successes at use, in runs whose problems come again."""

import shutil

import pytest
from small_run import changed, lineage, rows, train

from reval_core.config import Config
from reval_core.errors import ConfigError
from reval_core.home import Home

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    "override",
    ["objective.use=vargrad", "objective.use=logz", "objective.use=grpo", "objective.reference_reset_every=2"],
)
def test_successes_need_an_objective_of_single_responses_and_one_reference(
    override: str, small: Config, home: Home
) -> None:
    config = changed(small, "replay.successes=2", override, "objective.updates.off_policy=0")
    with pytest.raises(ConfigError, match=r"replay.successes is 2: .* Set it to 0"):
        train(config, home)


@pytest.mark.long
def test_what_is_used_is_a_function_of_the_store(small: Config, home: Home) -> None:
    """Learned again from stored trajectories, the policies are the same bit for bit."""
    config = changed(small, "replay.successes=2", "replay.baseline=problem", "checkpoint.every=100")
    done = train(config, home)
    used = rows(
        home,
        "SELECT p.iteration, m.trajectory_id, t.problem_id, m.reward AS used FROM update_members AS m "
        "JOIN policies AS p USING (policy_id) JOIN store.trajectories AS t USING (trajectory_id)",
    )
    stored = rows(
        home,
        "SELECT e.iteration, e.trajectory_id, t.problem_id, e.reward_used AS reward FROM store.replay_entries AS e "
        "JOIN store.trajectories AS t USING (trajectory_id)",
    )
    reward = {row["trajectory_id"]: row["reward"] for row in stored}
    for row in used:
        past = [
            s["reward"] for s in stored if s["problem_id"] == row["problem_id"] and s["iteration"] <= row["iteration"]
        ]
        assert row["used"] == pytest.approx(reward[row["trajectory_id"]] - sum(past) / len(past))
    before = lineage(home, done.run_id), (done.checkpoint / "model.safetensors").read_bytes()
    shutil.rmtree(home.policies)
    again = train(config, home)
    assert (lineage(home, again.run_id), (again.checkpoint / "model.safetensors").read_bytes()) == before
