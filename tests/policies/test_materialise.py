from __future__ import annotations

import json
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from house import OBJECTIVE, OPTIMIZER, VERSIONS, House
from transformers import Qwen2ForCausalLM

from reval_core.config import OptimizerConfig
from reval_core.errors import LearningError, PolicyError, StoreError
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Accumulated, Learner, UpdateReport
from reval_core.learning.reference import reference_scores
from reval_core.policies.folder import load_model, weights_checksum
from reval_core.policies.materialise import Policies
from reval_core.policies.steps import learning_settings
from reval_core.store import lineage, trajectories
from reval_core.store.lineage import LearningStep, PolicyRecord
from reval_core.store.trajectories import SCORE_SCHEMA


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the policies that are learned from here on, in order."""
    seen: list[str] = []
    learn = Policies.learn

    def counted(self: Policies, step: LearningStep) -> tuple[PolicyRecord, list[UpdateReport]]:
        seen.append(step.policy_id)
        return learn(self, step)

    monkeypatch.setattr(Policies, "learn", counted)
    return seen


def checksum(policies: Policies, policy_id: str) -> str:
    return weights_checksum(policies.model(policy_id))


def ids(records: Sequence[PolicyRecord]) -> list[str]:
    return [record.policy_id for record in records]


# -- learning and learning again --------------------------------------------------------------------------------------


def test_a_step_makes_the_policy_that_it_names(house: House) -> None:
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    policies = house.policies()
    record, reports = policies.learn(step)
    assert record.policy_id == step.policy_id
    assert (record.kind, record.updates_done, record.folder) == ("learned", 2, None)
    assert record.weights_checksum == checksum(policies, step.policy_id)
    assert record.weights_checksum != policies.checksum(house.base.policy_id)
    assert [report.n_examples for report in reports] == [8, 6]
    assert [report.lr for report in reports] == pytest.approx([1e-2 / 3, 2e-2 / 3])  # the warm-up
    # the policy is its reference at first, so residuals are the rewards over beta
    assert reports[0].residual == pytest.approx([-float(i % 3 == 0) / 0.5 for i in range(8)], abs=1e-12)


def test_the_store_gives_the_step_back_as_it_was(house: House) -> None:
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    record = house.learn(house.policies(), step)
    with house.store.read() as connection:
        again = lineage.learning_step(connection, lineage.policy(connection, record.policy_id))
    assert again == step
    assert again.policy_id == record.policy_id


@pytest.mark.parametrize("objective", ["reval", "vargrad", "grpo"])
def test_another_process_learns_a_policy_again_bit_for_bit(house: House, learned: list[str], objective: str) -> None:
    records = house.chain(house.policies(), use=objective)
    assert len({record.weights_checksum for record in records}) == 3
    learned.clear()
    fresh = house.policies()
    assert checksum(fresh, records[2].policy_id) == records[2].weights_checksum
    assert learned == ids(records)
    # from there back to an earlier one, which needs the way from the base again
    assert checksum(fresh, records[0].policy_id) == records[0].weights_checksum
    assert learned == [*ids(records), records[0].policy_id]


def test_learning_goes_on_the_same_after_a_restart(house: House) -> None:
    resident = house.policies()
    records = house.chain(resident, 2)
    step = house.step(records[1].policy_id, house.base.policy_id, 4)
    wanted, _ = resident.learn(step)
    again, _ = house.policies().learn(step)
    assert again == wanted


def test_a_reference_that_moved_is_found_again(house: House) -> None:
    policies = house.policies()
    first, second = house.chain(policies, 2)
    step = house.step(second.policy_id, first.policy_id, 4)
    third = house.learn(policies, step)
    under_base = house.policies().learn(house.step(second.policy_id, house.base.policy_id, 4))[0]
    assert third.weights_checksum != under_base.weights_checksum
    # neither of the two is saved and no score is stored: both are learned again
    assert checksum(house.policies(), third.policy_id) == third.weights_checksum


def test_settings_may_change_on_the_way(house: House) -> None:
    policies = house.policies()
    first = house.learn(policies, house.step(house.base.policy_id, house.base.policy_id, 0))
    changed = house.step(first.policy_id, house.base.policy_id, 2, beta=0.05, use="tbrm")
    second = house.learn(policies, changed)
    _, reports = policies.learn(changed)
    assert [report.lr for report in reports] == [1e-2, 1e-2]  # the optimizer's state goes on: the warm-up is over
    third = house.learn(policies, house.step(second.policy_id, house.base.policy_id, 4))
    assert checksum(house.policies(), third.policy_id) == third.weights_checksum


def test_precision_may_change_on_the_way(house: House) -> None:
    policies = house.policies()
    first = house.learn(policies, house.step(house.base.policy_id, house.base.policy_id, 0))
    step = house.step(first.policy_id, house.base.policy_id, 2)
    half = replace(step, settings={**step.settings, "compute_dtype": "bfloat16"})
    second = house.learn(policies, half)
    assert second.weights_checksum != policies.learn(step)[0].weights_checksum
    assert checksum(house.policies(), second.policy_id) == second.weights_checksum


def test_a_failure_while_learning_leaves_no_policy_under_a_wrong_name(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = house.policies()
    (first,) = house.chain(policies, 1)
    update = Learner.update
    done: list[int] = []

    def fail(self: Learner, examples: Sequence[TrainingExample]) -> UpdateReport:
        done.append(len(examples))
        if len(done) == 2:
            raise LearningError("not finite")
        return update(self, examples)

    monkeypatch.setattr(Learner, "update", fail)
    with pytest.raises(LearningError, match="not finite"):
        policies.learn(house.step(first.policy_id, house.base.policy_id, 2))
    assert checksum(policies, first.policy_id) == first.weights_checksum


def test_a_policy_nobody_knows_is_refused(house: House) -> None:
    with pytest.raises(StoreError, match="no policy pol_none"):
        house.policies().model("pol_none")


def test_a_lineage_of_another_base_is_refused(house: House) -> None:
    (first,) = house.chain(house.policies(), 1)
    other = replace(house.base, policy_id="pol_other")
    with pytest.raises(LearningError, match=f"descends from the base policy {house.base.policy_id}"):
        house.policies(base=other).model(first.policy_id)


# -- saved policies ---------------------------------------------------------------------------------------------------


def test_learning_again_starts_at_the_nearest_checkpoint(house: House, learned: list[str]) -> None:
    policies = house.policies()
    records = house.chain(policies, 2)
    folder = policies.save(records[1].policy_id, run_id="run-1", iteration=1, with_optimizer=True)
    assert folder == house.root / "policies" / records[1].policy_id
    third = house.learn(policies, house.step(records[1].policy_id, house.base.policy_id, 4))
    learned.clear()
    assert checksum(house.policies(), third.policy_id) == third.weights_checksum
    assert learned == [third.policy_id]


def test_a_checkpoint_of_an_earlier_policy_is_learned_up_to_first(house: House) -> None:
    policies = house.policies()
    records = house.chain(policies)
    folder = policies.save(records[0].policy_id, run_id=None, iteration=None, with_optimizer=True)
    assert json.loads((folder / "reval.json").read_text())["weights_checksum"] == records[0].weights_checksum
    assert checksum(house.policies(), records[2].policy_id) == records[2].weights_checksum


def test_a_policy_saved_without_optimizer_is_looked_at_and_not_learned_from(house: House, learned: list[str]) -> None:
    policies = house.policies()
    records = house.chain(policies, 2)
    policies.save(records[0].policy_id, run_id=None, iteration=None, with_optimizer=False)
    learned.clear()
    fresh = house.policies()
    assert checksum(fresh, records[0].policy_id) == records[0].weights_checksum
    assert not any(parameter.requires_grad for parameter in fresh.model(records[0].policy_id).parameters())
    assert learned == []
    assert checksum(fresh, records[1].policy_id) == records[1].weights_checksum
    assert learned == ids(records)


def test_saving_again_changes_nothing_and_adds_the_optimizer_when_asked(house: House) -> None:
    policies = house.policies()
    (first,) = house.chain(policies, 1)

    def saved(with_optimizer: bool) -> dict[str, int]:
        folder = policies.save(first.policy_id, run_id=None, iteration=None, with_optimizer=with_optimizer)
        return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    without = saved(False)
    assert saved(False) == without
    complete = saved(True)
    assert set(complete) == {*without, "optimizer.safetensors"}
    assert saved(True) == saved(False) == complete


def test_a_root_that_was_copied_elsewhere_goes_on(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    policies = house.policies()
    records = house.chain(policies, 2)
    policies.save(records[0].policy_id, run_id=None, iteration=None, with_optimizer=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "root"
    house.root.rename(elsewhere)
    house.at(elsewhere)
    assert checksum(house.policies(), records[1].policy_id) == records[1].weights_checksum


def test_a_saved_folder_that_is_gone_is_no_loss(house: House) -> None:
    policies = house.policies()
    (first,) = house.chain(policies, 1)
    folder = policies.save(first.policy_id, run_id=None, iteration=None, with_optimizer=True)
    folder.rename(house.root / "gone")
    assert checksum(house.policies(), first.policy_id) == first.weights_checksum


def test_a_saved_folder_that_was_tampered_with_is_refused(house: House) -> None:
    policies = house.policies()
    first, second = house.chain(policies, 2)
    for record in (first, second):
        policies.save(record.policy_id, run_id=None, iteration=None, with_optimizer=True)
    folders = [house.root / "policies" / record.policy_id for record in (first, second)]
    (folders[1] / "model.safetensors").write_bytes((folders[0] / "model.safetensors").read_bytes())
    with pytest.raises(PolicyError, match="were changed"):
        house.policies().model(second.policy_id)


def test_frozen_policies_are_kept_until_they_are_let_go(house: House) -> None:
    policies = house.policies()
    model = policies.model(house.base.policy_id)
    assert policies.model(house.base.policy_id) is model
    house.chain(policies, 1)
    assert policies.model(house.base.policy_id) is model
    policies.keep_frozen(house.base.policy_id, None)
    assert policies.model(house.base.policy_id) is model
    policies.keep_frozen()
    assert policies.model(house.base.policy_id) is not model


@pytest.mark.parametrize("reference", ["device", "host"])
def test_a_reference_beside_a_learner_in_bfloat16_is_rounded_and_does_nothing_but_score(
    house: House, reference: str
) -> None:
    base, names = house.base.policy_id, house.names

    def scores(policies: Policies) -> dict[str, tuple[float, float]]:
        return policies.scores(names, base, temperature=1.0, max_tokens=64, packed=True)

    # another name of the CPU, for on "cpu" nothing is rounded
    policies = house.policies(device="cpu:0", compute_dtype="bfloat16", reference=reference)
    expected, exact = scores(policies), policies.model(base)
    step = house.step(base, base, 0)
    policies.learn(replace(step, settings={**step.settings, "compute_dtype": "bfloat16"}))
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.bfloat16}
    assert scores(policies) == expected
    again = policies.model(base)  # whoever samples from it gets its own weights
    assert again is not exact
    assert weights_checksum(again) == policies.checksum(base)
    assert scores(policies) == expected


# -- what is kept in memory -------------------------------------------------------------------------------------------


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[torch.nn.Module]:
    """The models in memory of those that are loaded from here on; one leaves as soon as nobody holds it."""
    alive: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
    make = Qwen2ForCausalLM.__init__

    def counted(self: Qwen2ForCausalLM, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        alive.add(self)

    monkeypatch.setattr(Qwen2ForCausalLM, "__init__", counted)
    return alive


def one_round(house: House, policies: Policies, parent: str, index: int, reference: str | None, use: str) -> str:
    """A round as a run makes it: sample from the policy, score under the reference, learn."""
    policies.model(parent)
    if reference is not None:
        policies.scores(house.names, reference, temperature=1.0, max_tokens=64)
    return house.learn(policies, house.step(parent, reference, 2 * index, use=use)).policy_id


@pytest.mark.parametrize(("use", "wanted"), [("reval", 2), ("grpo", 1)])
def test_a_resumed_run_keeps_as_many_models_as_one_that_nobody_disturbed(
    house: House, models: weakref.WeakSet[torch.nn.Module], use: str, wanted: int
) -> None:
    """The learner's, and the reference's where the objective has one."""
    reference = house.base.policy_id if use == "reval" else None

    def kept(policies: Policies, parent: str, rounds: range) -> tuple[str, list[int]]:
        policies.model(house.base.policy_id)  # evaluated before the first round
        counts = []
        for index in rounds:
            parent = one_round(house, policies, parent, index, reference, use)
            counts.append(len(models))
        return parent, counts

    undisturbed = house.policies()
    second, counts = kept(undisturbed, house.base.policy_id, range(2))
    undisturbed.save(second, run_id="run-1", iteration=1, with_optimizer=True)
    assert counts == [wanted] * 2
    del undisturbed
    assert len(models) == 0
    _, counts = kept(house.policies(), second, range(2, 5))
    assert counts == [wanted] * 3


@pytest.mark.parametrize(
    ("use", "with_optimizer", "wanted"), [("reval", True, 2), ("grpo", True, 1), ("grpo", False, 1)]
)
def test_there_are_never_more_models_than_those_on_the_way(
    house: House,
    models: weakref.WeakSet[torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    use: str,
    with_optimizer: bool,
    wanted: int,
) -> None:
    """At each update after a resume, also where the saved policy has no optimizer state and is learned again."""
    reference = house.base.policy_id if use == "reval" else None
    policies, parent = house.policies(), house.base.policy_id
    for index in range(2):
        parent = one_round(house, policies, parent, index, reference, use)
    policies.save(parent, run_id="run-1", iteration=1, with_optimizer=with_optimizer)
    del policies
    counts, update = [], Learner.update

    def counted(self: Learner, examples: Sequence[TrainingExample]) -> UpdateReport:
        counts.append(len(models))
        return update(self, examples)

    monkeypatch.setattr(Learner, "update", counted)
    one_round(house, house.policies(), parent, 2, reference, use)
    assert counts == [wanted] * len(counts)
    assert len(counts) == (2 if with_optimizer else 6)


def test_a_model_that_was_sampled_from_becomes_the_learners(house: House) -> None:
    policies = house.policies()
    sampled = policies.model(house.base.policy_id)
    first = house.learn(policies, house.step(house.base.policy_id, None, 0, use="grpo"))
    assert policies.model(first.policy_id) is sampled
    assert all(parameter.requires_grad for parameter in sampled.parameters())
    again = policies.model(house.base.policy_id)  # the base is to be had as before
    assert weights_checksum(again) == policies.checksum(house.base.policy_id) != first.weights_checksum


def test_the_reference_is_not_learned_on(house: House) -> None:
    policies = house.policies()
    reference = policies.model(house.base.policy_id)
    before = weights_checksum(reference)
    (first,) = house.chain(policies, 1)
    assert policies.model(first.policy_id) is not reference
    assert policies.model(house.base.policy_id) is reference
    assert weights_checksum(reference) == before
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_the_checksum_is_of_the_weights_at_hand(house: House) -> None:
    """A saved folder may hold another realisation than the one that was recorded first."""
    policies = house.policies()
    first, second = house.chain(policies, 2)
    house.spoil(house.names[4])
    other = house.policies({**VERSIONS, "torch": "another"})
    weights = weights_checksum(other.model(second.policy_id))
    assert other.checksum(second.policy_id) == weights != second.weights_checksum
    assert other.checksum(first.policy_id) == first.weights_checksum  # no longer at hand
    other.save(second.policy_id, run_id=None, iteration=None, with_optimizer=False)
    fresh = house.policies()
    assert fresh.checksum(second.policy_id) == second.weights_checksum
    fresh.model(second.policy_id)
    assert fresh.checksum(second.policy_id) == weights


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "read"),
    [
        ("reval", {"beta", "value_gradient"}),
        ("vargrad", {"beta"}),
        ("grpo", {"clip_low", "clip_high"}),
    ],
)
def test_a_policy_is_named_by_the_settings_that_its_objective_reads(house: House, use: str, read: set[str]) -> None:
    others = {"beta": 0.7, "value_gradient": "detach", "clip_low": 0.1, "clip_high": 0.4, "policy_temperature": 0.9}
    base = house.base.policy_id
    plain = house.step(base, base, 0, use=use).policy_id
    changing = {
        name for name, value in others.items() if house.step(base, base, 0, use=use, **{name: value}).policy_id != plain
    }
    assert changing == {*read, "policy_temperature"}


def test_a_policy_is_named_by_all_of_the_optimizer_that_moves_weights(house: House) -> None:
    others = {
        "use": "adamw_8bit", "lr": 0.5, "betas": (0.5, 0.5), "eps": 0.5, "weight_decay": 0.5, "clip_norm": 0.5,
        "warmup_updates": 9, "max_tokens_per_micro_batch": 32, "packing": True, "max_skipped_in_a_row": 9,
    }  # fmt: skip
    assert set(others) == set(OptimizerConfig.model_fields)
    plain = learning_settings(OBJECTIVE, OPTIMIZER, "float32")
    same = {
        name
        for name, value in others.items()
        if learning_settings(OBJECTIVE, OPTIMIZER.model_copy(update={name: value}), "float32") == plain
    }
    assert same == {"max_skipped_in_a_row"}


def test_a_policy_recorded_with_all_settings_is_still_learned_again(house: House) -> None:
    policies, step = house.policies(), house.step(house.base.policy_id, house.base.policy_id, 0)
    everything = {
        **step.settings,
        "objective": OBJECTIVE.model_dump(mode="json", exclude={"updates", "reference_reset_every"}),
        "optimizer": OPTIMIZER.model_dump(mode="json"),
    }
    first = house.learn(policies, replace(step, settings=everything))
    second = house.learn(policies, house.step(first.policy_id, house.base.policy_id, 2))
    assert checksum(house.policies(), second.policy_id) == second.weights_checksum


def test_how_many_updates_may_be_skipped_is_the_process_own_matter(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = Learner.accumulate

    def not_finite(self: Learner, examples: Sequence[TrainingExample]) -> Accumulated:
        return replace(accumulate(self, examples), loss=math.nan)

    monkeypatch.setattr(Learner, "accumulate", not_finite)
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    _, reports = house.policies(max_skipped_in_a_row=3).learn(step)
    assert [report.skipped for report in reports] == [True, True]
    with pytest.raises(LearningError, match="2 updates in a row were not finite"):
        house.policies(max_skipped_in_a_row=2).learn(step)


# -- when the weights come out otherwise ------------------------------------------------------------------------------


def test_a_changed_response_makes_learning_again_fail_loudly(house: House) -> None:
    (first,) = house.chain(house.policies(), 1)
    house.spoil(house.names[4])
    fresh = house.policies()
    for _ in range(2):  # wrong weights are not handed out on the second call either
        with pytest.raises(LearningError, match=f"{first.policy_id} was learned again .* its weights differ"):
            fresh.model(first.policy_id)
    assert house.store.query("SELECT count(*) AS n FROM store.realisations").column("n").to_pylist() == [0]


def test_a_missing_response_makes_learning_again_fail_loudly(house: House) -> None:
    (first,) = house.chain(house.policies(), 1)
    with house.store.write() as connection:
        connection.execute("DELETE FROM store.payloads WHERE trajectory_id = $name", {"name": house.names[4]})
    with pytest.raises(StoreError, match=f"no payload in the store, the first is {house.names[4]}"):
        house.policies().model(first.policy_id)


@pytest.mark.parametrize("key", ["torch", "threads", "LEARNING_VERSION"])
def test_in_another_environment_other_weights_are_recorded_and_the_run_goes_on(
    house: House, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = house.chain(house.policies(), 2)
    house.sample(second.policy_id, round=2, logprob=-3.0)
    house.spoil(house.names[4])  # stands in for kernels that round otherwise
    other = {**VERSIONS, key: "another"}
    model = house.policies(other).model(second.policy_id)
    assert weights_checksum(model) != second.weights_checksum
    found = house.store.query("SELECT * FROM store.realisations").to_pylist()
    assert {row["policy_id"] for row in found} == {first.policy_id, second.policy_id}
    row = next(row for row in found if row["policy_id"] == second.policy_id)
    assert row["weights_checksum"] == weights_checksum(model)
    assert json.loads(row["versions"]) == other
    # the drift is over the batch of the second policy; the first one has none
    assert row["logprob_drift"] == pytest.approx(drift_by_hand(house, second.policy_id, model), rel=1e-6)
    assert next(r for r in found if r["policy_id"] == first.policy_id)["logprob_drift"] is None
    assert "learned again under other versions" in caplog.text
    # what is recorded of the policy itself stays
    assert house.policies().checksum(second.policy_id) == second.weights_checksum


def drift_by_hand(house: House, policy_id: str, model: torch.nn.Module) -> float:
    query = (
        "SELECT q.token_ids, p.response_ids, t.behaviour_logprob FROM store.trajectories AS t "
        "JOIN store.batches AS b USING (batch_id) JOIN store.payloads AS p USING (trajectory_id) "
        "JOIN store.prompts AS q USING (prompt_id) WHERE b.policy_id = $policy_id"
    )
    differences = []
    for row in house.store.query(query, policy_id=policy_id).to_pylist():
        prompt, response = row["token_ids"], row["response_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double()
        logprob = torch.log_softmax(logits, -1).gather(-1, torch.tensor(response)[:, None]).sum().item()
        differences.append(abs(logprob - row["behaviour_logprob"]))
    assert len(differences) == 8
    return float(np.mean(differences))


def test_another_environment_that_gives_the_same_weights_is_no_realisation(house: House) -> None:
    (first,) = house.chain(house.policies(), 1)
    fresh = house.policies({**VERSIONS, "torch": "another"})
    assert checksum(fresh, first.policy_id) == first.weights_checksum
    assert house.store.query("SELECT count(*) AS n FROM store.realisations").column("n").to_pylist() == [0]


# -- reference scores -------------------------------------------------------------------------------------------------


def test_scores_are_computed_where_the_store_has_none(house: House) -> None:
    policies = house.policies()
    found = policies.scores(house.names, house.base.policy_id, temperature=1.0, max_tokens=64)
    assert [found[name] for name in house.names] == scored(house)
    assert house.store.query("SELECT count(*) AS n FROM store.reference_scores").column("n").to_pylist() == [0]


def test_stored_scores_are_taken_for_their_own_reference_and_temperature_alone(house: House) -> None:
    policies = house.policies()
    base = house.base.policy_id
    computed = policies.scores(house.names, base, temperature=1.0, max_tokens=64)
    rows = {"trajectory_id": house.names[:2], "logprob": [-1.0, -2.0], "root_value": [3.0, 4.0]}
    with house.store.write() as connection:
        trajectories.add_reference_scores(
            connection, base, policies.scoring_id(1.0), pa.table(rows, schema=SCORE_SCHEMA)
        )
    found = policies.scores(house.names[:4], base, temperature=1.0, max_tokens=64)
    assert [found[name] for name in house.names[:2]] == [(-1.0, 3.0), (-2.0, 4.0)]
    for name in house.names[2:4]:
        assert found[name] == pytest.approx(computed[name], abs=1e-5)
    colder = policies.scores(house.names[:2], base, temperature=0.5, max_tokens=64)
    assert all(colder[name] not in (found[name], computed[name]) for name in house.names[:2])
    (first,) = house.chain(policies, 1)
    under_first = policies.scores(house.names[:2], first.policy_id, temperature=1.0, max_tokens=64)
    assert all(under_first[name] not in (found[name], computed[name]) for name in house.names[:2])


def test_learning_takes_the_stored_scores(house: House) -> None:
    policies = house.policies()
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    rows = {"trajectory_id": house.names, "logprob": [-9.0] * 8, "root_value": [0.0] * 8}
    _, computed = policies.learn(step)
    with house.store.write() as connection:
        trajectories.add_reference_scores(
            connection, house.base.policy_id, policies.scoring_id(1.0), pa.table(rows, schema=SCORE_SCHEMA)
        )
    _, stored = house.policies().learn(step)
    assert stored[0].log_ratio - computed[0].log_ratio == pytest.approx(
        [9.0 + logprob for logprob, _ in scored(house)], abs=1e-5
    )


def scored(house: House) -> list[tuple[float, float]]:
    """Scores of the batch under the base, in its order, whatever the store has."""
    with house.store.read() as connection:
        tokens = trajectories.tokens(connection, house.names)
    examples = [
        TrainingExample(name, "g", tokens[name].prompt_ids, tokens[name].response_ids, 0.0) for name in house.names
    ]
    logprob, root_value = reference_scores(load_model(house.base.folder), examples, max_tokens=64)
    return list(zip(logprob.tolist(), root_value.tolist(), strict=True))


def test_no_scores_are_asked_for_where_the_objective_has_no_reference(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("scores were asked for")

    monkeypatch.setattr(Policies, "scores", refuse)
    record, _ = house.policies().learn(house.step(house.base.policy_id, None, 0, use="grpo"))
    assert record.reference_policy_id is None
