"""A real run whose payloads were archived and whose checkpoints were removed: it goes on as if nothing had happened."""

import json
import shutil
from pathlib import Path

import pytest
import small_run
from small_run import BATCH, ROUNDS, Finished, changed, counts, lineage, rows, sampled, train, value
from typer.testing import CliRunner

import flows.train
from flows import cli_prune, planning
from reval_core.config import Config
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.policies import pruning
from reval_core.store import Store, archive, trajectories
from reval_core.store.outside import Choice, outside
from reval_core.upkeep import RetentionConfig
from tasks import prune
from tasks.outcome import Outcome
from tasks.run import Here

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.long]
# Four rounds of eight responses, a window of sixteen, checkpoints after rounds 1 and 3: at the end rounds 0 and 1 lie
# outside every window, and the newest checkpoint is the newest policy.
OUTSIDE = 2 * BATCH


def archived(home: Home) -> Home:
    """The root with everything that no run needs in archives."""
    store = Store(home.database)
    store.prepare()
    with store.read() as connection:
        saved = pruning.as_saved(pruning.saved_policies(connection, home.root))
        found = outside(connection, saved, Choice())
    assert archive.archive(store, found).payloads == OUTSIDE
    return home


def without_folders(home: Home) -> Home:
    """The root without a single saved policy."""
    for folder in home.policies.iterdir():
        shutil.rmtree(folder)
    return home


def weights(folder: Path | None) -> dict[str, bytes]:
    """Weights and optimizer state, to the bit."""
    assert folder is not None
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


def fork(config: Config, home: Home, place: str) -> Outcome:
    branch = planning.fork(config, home, start_from=place, force=None)
    return train(config, home, branch)


def test_a_run_whose_checkpoints_are_lost_comes_back_from_archives_to_the_bit(
    finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = without_folders(archived(copied))
    before = counts(home)
    assert before["payloads"] == 4 * BATCH - OUTSIDE + 2 * 6  # with two evaluations of three problems, twice each
    with sampled(monkeypatch) as seen:
        done = train(changed(finished.config, "evaluation.after=false"), home)
    assert seen == []
    assert done.executed == (f"checkpoint@{ROUNDS - 1}",)
    assert counts(home) == before
    assert weights(done.checkpoint) == weights(finished.outcome.checkpoint)


def test_a_fork_of_an_early_round_is_the_same_with_and_without_archives(
    small: Config, finished: Finished, copied: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, "objective.beta=0.2", "replay.capacity=24")
    place = f"{finished.outcome.run_id}@1"
    plain = Home(Path(shutil.copytree(copied.root, tmp_path / "plain")))
    expected = fork(config, plain, place)
    home = without_folders(archived(copied))
    with sampled(monkeypatch) as seen:
        done = fork(config, home, place)
    assert len(seen) == 2 * BATCH  # round 1 is sampled by a policy that both share
    assert done.run_id == expected.run_id
    assert lineage(home, done.run_id) == lineage(plain, done.run_id)
    assert weights(done.checkpoint) == weights(expected.checkpoint)
    responses = [small_run.responses(root) for root in (plain, home)]
    assert set(responses[1]) < set(responses[0])  # the others lie in the archive


def test_archived_texts_are_graded_again_like_stored_ones(finished: Finished, copied: Home) -> None:
    batches = [row["batch_id"] for row in rows(copied, "SELECT batch_id FROM store.batches ORDER BY batch_id")]

    def texts() -> list[list[tuple[str, str, str]]]:
        with Store(copied.database).read() as connection:
            return [trajectories.completions(connection, batch) for batch in batches]

    before = texts()
    archived(copied)
    assert texts() == before


def test_a_dropped_round_refuses_to_be_learned_again_and_a_checkpoint_still_serves(
    small: Config, finished: Finished, copied: Home
) -> None:
    store = Store(copied.database)
    with store.read() as connection:
        saved = pruning.as_saved(pruning.saved_policies(connection, copied.root))
    assert archive.drop(store, saved, Choice()).payloads == OUTSIDE
    config, run_id = changed(small, "objective.beta=0.2"), finished.outcome.run_id
    with pytest.raises(StoreError, match=r"8 trajectories have no payload .* dropped for good"):
        fork(config, copied, f"{run_id}@1")  # the policy of round 0 has no folder
    done = fork(changed(config, "replay.capacity=8"), copied, f"{run_id}@4")
    assert done.rounds == ROUNDS


@pytest.fixture
def pruned_after_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's rules are applied after every round."""
    after_round = flows.train.after_round

    def with_rules(here: Here, policy: str) -> None:
        after_round(here, policy)
        prune.prune(here)

    monkeypatch.setattr(flows.train, "after_round", with_rules)


@pytest.mark.usefixtures("pruned_after_each_round")
def test_a_run_that_archives_and_prunes_as_it_goes_learns_the_same(
    small: Config, finished: Finished, home: Home
) -> None:
    rules = ("retention.payloads=archive", "retention.keep_last=1", "checkpoint.every=1", "replay.capacity=8")
    done = train(changed(small, *rules), home)
    places = "SELECT iteration, any_value(payload) AS payload FROM trajectories GROUP BY iteration ORDER BY iteration"
    assert [row["payload"] for row in rows(home, places)] == ["archived", "archived", "archived", "stored"]
    events = rows(home, "SELECT iteration, message FROM events WHERE kind = 'retention'")
    assert {row["iteration"] for row in events} == {1, 2, 3}
    assert sum(row["message"].startswith("8 payloads archived") for row in events) == 3
    assert str(prune.carry_out(home, Store(home.database), prune.rules_of(Store(home.database)))) in (
        "1 folder of policies removed (1.22 MB)",  # the last checkpoint is made when the rounds are over
        "",
    )
    assert [folder.name for folder in home.policies.iterdir()] == [done.policy_id]

    other = Home(home.root.with_name("other"))
    plain = train(changed(small, "replay.capacity=8"), other)
    assert plain.run_id == done.run_id  # rules are no part of a run's identity
    assert lineage(other, plain.run_id) == lineage(home, done.run_id)
    assert weights(plain.checkpoint) == weights(done.checkpoint)


def test_the_commands_show_what_they_do(finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    monkeypatch.setattr(cli_prune.console, "_width", 200, raising=False)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli_prune.app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    run_id = finished.outcome.run_id
    shown = call("archive", "--dry-run", "--run", run_id[:8])
    assert run_id in shown and "0 to 1" in shown and " 16 " in shown
    assert value(copied, "SELECT count(*) FROM store.archived_payloads") == 0
    assert "archived 16 payloads" in call("archive")
    assert "Nothing to do" in call("archive")
    assert "16 payloads would come back" in call("archive", "--bring-back", "--dry-run")
    assert "brought back 16 payloads" in call("archive", "--bring-back")
    assert "dropped 16 payloads" in call("archive", "--drop", "--yes")
    assert value(copied, "SELECT count(*) FROM trajectories WHERE payload = 'dropped'") == 16

    assert "Nothing to remove" in call("prune")
    rules = copied.root.parent / "rules.yaml"
    rules.write_text(json.dumps({"problems": [{"path": "p"}], "retention": {"keep_last": 1, "mlflow_days": 0}}))
    shown = call("prune", "--dry-run", "--config", str(rules))
    assert "could not be learned again" in shown  # round 0, which was dropped, leads to the checkpoint of round 1
    assert call("archive", "--bring-back").startswith("brought back 0 payloads")


def test_dropping_asks_and_without_a_terminal_wants_yes(copied: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    refused = CliRunner().invoke(cli_prune.app, ["archive", "--drop"])
    assert "add --yes" in str(refused.exception)
    monkeypatch.setattr("flows.pruning._is_asked", lambda: True)
    assert CliRunner().invoke(cli_prune.app, ["archive", "--drop"], input="n\n").exit_code == 1
    assert value(copied, "SELECT count(*) FROM store.archived_payloads") == 0
    assert "dropped 16" in CliRunner().invoke(cli_prune.app, ["archive", "--drop"], input="y\n").output


def test_what_became_needed_while_somebody_was_asked_is_not_dropped(
    copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its checkpoint the newest policy would be learned again, from the first round on."""
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    monkeypatch.setattr("flows.pruning._ask", lambda question, yes: without_folders(copied))
    assert "dropped 0 payloads" in CliRunner().invoke(cli_prune.app, ["archive", "--drop"]).output
    assert value(copied, "SELECT count(*) FROM store.archived_payloads") == 0


def test_the_rules_are_neutral(small: Config) -> None:
    ruled = changed(small, "retention.payloads=drop", "retention.keep_last=1", "retention.log_days=30")
    assert ruled.config_id == small.config_id
    assert small.retention == RetentionConfig()
