"""What a start from a schedule or a form stands for: told once, kept for its retries."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from small_run import BATCH, ROUNDS, Finished, changed, counts, lineage, rows, sampled, train, value

from flows import starting
from flows.forms import Settings, configured
from flows.generate import generate_flow, generation_of
from flows.learn import learn_stored
from flows.starting import Training, policy_named, resolved
from reval_core.config import Config
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.problems.arithmetic import arithmetic_problems
from tasks.progress import Progress

pytestmark = pytest.mark.usefixtures("quick")


def start(config: Config, home: Home, **words: Any) -> Training:
    asked = {
        "continue_from": None,
        "add_iterations": None,
        "only_new_problems": False,
        "fork_from": None,
        "force": None,
    }
    return starting.training(config, home, **asked | words)


def test_without_words_it_is_the_run_that_the_configuration_names(
    small: Config, finished: Finished, copied: Home
) -> None:
    plan = start(small, copied)
    assert (plan.run_id, plan.fork, plan.config.run.iterations) == (finished.outcome.run_id, None, ROUNDS)
    assert start(small, copied, add_iterations=2).config.run.iterations == ROUNDS + 2


def test_latest_goes_on_with_the_run_of_that_name(small: Config, finished: Finished, copied: Home) -> None:
    plan = start(small, copied, continue_from="latest", add_iterations=3)
    assert (plan.run_id, plan.fork, plan.config.run.iterations) == (finished.outcome.run_id, None, ROUNDS + 3)


def test_latest_of_no_run_begins_one(small: Config, home: Home) -> None:
    from reval_core.store import Store

    Store(home.database).prepare()
    plan = start(small, home, continue_from="latest", add_iterations=2)
    assert (plan.fork, plan.config.run.iterations) == (None, 2)


def test_latest_is_the_run_that_was_started_last_and_a_fork_goes_on_as_a_fork(
    small: Config, finished: Finished, copied: Home
) -> None:
    other = changed(small, "objective.beta=0.2")
    branch = start(other, copied, fork_from=f"{finished.outcome.run_id}@3")
    forked = train(branch.config, copied, branch.fork).run_id
    plan = start(other, copied, continue_from="latest", add_iterations=1)
    assert plan.run_id == forked
    assert plan.fork == branch.fork
    done = train(plan.config, copied, plan.fork)
    assert (done.run_id, done.rounds) == (forked, ROUNDS + 1)


def test_another_setting_goes_on_in_a_fork_from_the_last_round(small: Config, finished: Finished, copied: Home) -> None:
    plan = start(changed(small, "objective.beta=0.2"), copied, continue_from="latest", add_iterations=1)
    assert plan.fork is not None
    assert (plan.fork.parent_run_id, plan.fork.iteration) == (finished.outcome.run_id, ROUNDS)
    assert plan.config.run.iterations == ROUNDS + 1


def test_from_an_earlier_round_the_next_one_is_sampled_anew(
    small: Config, finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = finished.outcome.run_id
    plan = start(small, copied, continue_from=f"{run_id}@2", add_iterations=1)
    assert plan.fork is not None
    assert (plan.fork.iteration, dict(plan.fork.forced)) == (2, {"generate@2": 1})
    with sampled(monkeypatch) as seen:
        done = train(plan.config, copied, plan.fork)
    assert (done.rounds, len(seen)) == (3, BATCH)
    assert lineage(copied, done.run_id)[:2] == lineage(copied, run_id)[:2]


def test_best_is_the_policy_with_the_highest_value(finished: Finished, copied: Home, benchmark_file: Path) -> None:
    evaluated = finished.config
    plan = start(evaluated, copied, continue_from="best", add_iterations=1)
    # evaluated before the first round and after the last: of learned policies only the last one
    assert (plan.run_id, plan.config.run.iterations) == (finished.outcome.run_id, ROUNDS + 1)
    with pytest.raises(ConfigError, match="needs a benchmark"):
        start(changed(evaluated, "evaluation.benchmarks=[]"), copied, continue_from="best")


def test_only_new_problems(small: Config, finished: Finished, copied: Home, tmp_path: Path) -> None:
    words = {"continue_from": "latest", "add_iterations": 1, "only_new_problems": True}
    folder = tmp_path / "problems"
    folder.mkdir()
    one = folder / "one.jsonl"
    one.write_bytes(Path(small.problems[0].path).read_bytes())
    config = changed(small, f"problems.0.path={folder}", "run.iterations=1", "run.name=nightly")
    first = start(config, copied, **words)
    assert not first.nothing_new  # a run that is not there yet has had nothing
    train(first.config, copied, first.fork)
    rest = start(config, copied, **words)
    assert not rest.nothing_new  # four of the six were drawn
    train(rest.config, copied, rest.fork)
    assert start(config, copied, **words).nothing_new
    new = arithmetic_problems("train")[5:7]
    (folder / "two.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in new), encoding="utf-8")
    second = start(config, copied, **words)
    assert not second.nothing_new
    assert second.run_id == first.run_id
    assert train(second.config, copied, second.fork).rounds == 3
    assert start(config, copied, **words).nothing_new


def test_words_that_contradict_each_other_are_refused(small: Config, copied: Home) -> None:
    with pytest.raises(ConfigError, match="go on, the other branch off"):
        start(small, copied, continue_from="latest", force="generate@1")
    with pytest.raises(StoreError, match="no run nobody"):
        start(small, copied, continue_from="nobody")
    with pytest.raises(ConfigError, match="latest, best, RUN or RUN@ROUND"):
        start(small, copied, continue_from="latest@x")


def test_a_retry_means_what_the_first_attempt_meant(small: Config, finished: Finished, copied: Home) -> None:
    def mean() -> dict[str, Any]:
        return start(small, copied, continue_from="latest", add_iterations=1).as_json()

    first = resolved(copied, "flow-run-1", "train", {"continue_from": "latest"}, mean)
    plan = Training.from_json(first)
    train(plan.config, copied, plan.fork)
    again = resolved(copied, "flow-run-1", "train", {"continue_from": "latest"}, mean)
    assert Training.from_json(again) == plan  # without the record it would be one round more
    assert Training.from_json(resolved(copied, "flow-run-2", "train", {}, mean)).config.run.iterations == ROUNDS + 2
    told = rows(copied, "SELECT flow, asked ->> 'continue_from' AS word, meant ->> 'run_id' AS run FROM starts")
    assert told[0] == {"flow": "train", "word": "latest", "run": plan.run_id}


def test_a_policy_by_a_word(finished: Finished, copied: Home, home: Home, tmp_path: Path) -> None:
    assert policy_named(copied, "latest", None) == finished.outcome.policy_id
    file = tmp_path / "config.yaml"
    file.write_text(finished.config.to_yaml(), encoding="utf-8")
    assert policy_named(copied, "best", str(file)) == finished.outcome.policy_id
    assert policy_named(copied, finished.outcome.policy_id[:10], None) == finished.outcome.policy_id
    with pytest.raises(StoreError, match="of which runs"):
        policy_named(copied, "best", None)


def test_generation_alone_is_stored_graded_and_learned_from(
    small: Config, finished: Finished, copied: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(small.to_yaml(), encoding="utf-8")
    settings, policy = generation_of(copied, finished.outcome.policy_id, 2, str(file), [])
    with sampled(monkeypatch) as seen:
        done = generate_flow.fn(settings, copied, Progress(quiet=True), policy)
    assert (done.responses, len(seen), sum(done.statuses.values())) == (2 * BATCH, 2 * BATCH, 2 * BATCH)
    before = counts(copied)
    with sampled(monkeypatch) as seen:
        again = generate_flow.fn(settings, copied, Progress(quiet=True), policy)
    assert (seen, again.executed, again.responses, again.tokens) == ([], (), done.responses, done.tokens)
    assert counts(copied) == before
    offline = changed(small, f"offline={{trajectories: 'run:{done.run_id}'}}", "run.iterations=1")
    learned = learn_stored.fn(offline, copied, Progress(quiet=True))
    assert value(copied, "SELECT count(*) FROM replay WHERE run_id = $run", run=learned.run_id) == 2 * BATCH


def test_what_the_base_answers_alone_is_not_sampled_again_in_training(
    small: Config, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(small.to_yaml(), encoding="utf-8")
    settings, policy = generation_of(home, small.model.path, 1, str(file), [])
    assert policy is None
    generate_flow.fn(settings, home, Progress(quiet=True), policy)
    with sampled(monkeypatch) as seen:
        train(changed(small, "run.iterations=2"), home)
    assert len(seen) == BATCH  # the second round


def test_a_form_has_every_setting_with_its_limits_and_none_has_to_be_given() -> None:
    schema = Settings.model_json_schema()
    assert "required" not in schema
    beta = schema["$defs"]["ObjectiveSettings"]["properties"]["beta"]
    assert beta["exclusiveMinimum"] == 0
    assert beta["description"] == "Weight of the KL to the reference; beta times length is about 10. (above 0)"
    switch = schema["$defs"]["EvaluationSettings"]["properties"]["before"]
    assert switch["enum"] == ["on", "off"]
    assert "default" not in beta
    assert schema["$defs"]["LimitsSettings"]["properties"]["memory_gb"]["title"] == "memory_gb"
    for section, field in Config.model_fields.items():
        if section != "offline" and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            name = schema["properties"][section]["$ref"].rpartition("/")[2]
            assert set(schema["$defs"][name]["properties"]) == set(field.annotation.model_fields)


def test_a_form_changes_what_it_says_of_a_file(small: Config, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(small.to_yaml(), encoding="utf-8")
    given = Settings.model_validate(
        {
            "objective": {"beta": 0.3, "updates": {"off_policy": 1}},
            "run": {"seed": 7},
            "replay": {"excludes_fresh": "off"},
            "evaluation": {"before": "on", "after": None},
        }
    )
    assert given.model_dump(mode="json") == {
        "run": {"seed": 7},
        "replay": {"excludes_fresh": False},
        "evaluation": {"before": True},
        "objective": {"beta": 0.3, "updates": {"off_policy": 1}},
    }
    made = configured(str(file), given, ["replay.capacity=40"])
    expected = small.model_dump(mode="json")
    expected["objective"]["beta"], expected["objective"]["updates"]["off_policy"] = 0.3, 1
    expected["evaluation"]["before"] = True
    expected["run"]["seed"], expected["replay"]["capacity"] = 7, 40
    assert made == parse_config(expected)


@pytest.mark.parametrize(
    ("given", "where"),
    [({"objective": {"beta": -1}}, "objective.beta"), ({"objective": {"bta": 1}}, "objective.bta"), ({"x": 1}, "x")],
)
def test_a_form_names_the_field_of_a_wrong_value(given: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as error:
        Settings.model_validate(given)
    assert {".".join(str(part) for part in item["loc"]) for item in error.value.errors()} & {
        where,
        f"{where}.constrained-float",
    }
