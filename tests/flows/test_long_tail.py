"""A budget and a deadline in runs: what is cut is stored as such, and nothing is missing, wherever an attempt dies."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from small_run import BATCH, Crash, changed, responses, rows, sampled, train, value

from reval_core.config import Config
from reval_core.errors import ConfigError
from reval_core.home import Home
from reval_core.rollouts import Sample
from reval_core.store import Store
from tasks.parts import Parts

pytestmark = pytest.mark.usefixtures("quick")
BUDGET = 17 * BATCH
CUTS = "SELECT finish_reason, count(*) AS n, max(response_tokens) AS most FROM trajectories GROUP BY ALL ORDER BY ALL"


@pytest.fixture
def one_round(small: Config) -> Config:
    """A round, each response committed as it ends."""
    return changed(small, "run.iterations=1", "store.flush_seconds=0.000001")


def told(home: Home) -> dict[str, int]:
    """Responses by finish_reason."""
    return {row["finish_reason"]: row["n"] for row in rows(home, CUTS)}


@contextmanager
def dies(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """An attempt in this block ends when the engine has given so many responses."""
    add, left = Parts.add, iter([True] * after)

    def added(self: Parts, sample: Sample) -> None:
        if not next(left, False):
            raise Crash("generate")
        add(self, sample)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Parts, "add", added)
        yield


@pytest.mark.long
def test_an_attempt_under_a_budget_may_die_anywhere(
    one_round: Config, home: Home, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(one_round, f"rollouts.token_budget={BUDGET}")
    train(config, home)
    expected, cut = responses(home), told(home)
    assert sum(cut.values()) == BATCH
    assert cut["budget"] >= 2
    tokens = value(home, "SELECT sum(response_tokens) FROM trajectories")
    assert told(home).keys() == {"stop", "budget"}
    assert BUDGET - cut["budget"] < tokens <= BUDGET

    again = Home(tmp_path_factory.mktemp("again"))
    # among the first, and when some of those are stored that the budget cut: nothing else comes after them
    ended = BATCH - cut["budget"]
    for stored, dies_after in ((0, 2), (2, ended - 1)):
        with dies(monkeypatch, dies_after):
            train(config, again)
        assert value(again, "SELECT count(*) FROM trajectories") == stored + dies_after
    assert told(again)["budget"] == 1
    train(config, again)
    assert responses(again) == expected
    assert told(again) == cut


def test_what_a_deadline_cut_is_stored_and_is_not_sampled_again(
    one_round: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(one_round, "rollouts.deadline_s=1e-9", "reward.truncated=drop")
    with sampled(monkeypatch) as first, dies(monkeypatch, 3):
        train(config, home)
    kept = responses(home)
    assert len(kept) == 3
    with sampled(monkeypatch) as rest:
        train(config, home)
    assert len(rest) == BATCH - 3
    assert not set(rest) & set(first[:3])
    assert [row for row in responses(home) if row in kept] == kept
    assert told(home).keys() == {"deadline"}
    assert rows(home, "SELECT truncated_share, updates FROM rounds") == [{"truncated_share": 1.0, "updates": 0}]
    (cut,) = Store(home.database).query("truncation_by_round").to_pylist()
    assert (cut["truncated"], cut["cut_by_deadline"], cut["cut_by_budget"]) == (BATCH, BATCH, 0)
    with sampled(monkeypatch) as again:
        train(config, home)
    assert again == []


def test_unset_limits_change_no_name_and_set_ones_do(small: Config) -> None:
    assert {"token_budget", "deadline_s"}.isdisjoint(small.identity()["rollouts"])
    names = {
        changed(small, *limits).config_id for limits in ([], ["rollouts.token_budget=900"], ["rollouts.deadline_s=9"])
    }
    assert len(names) == 3


def test_a_budget_without_a_token_for_each_response_is_refused(small: Config) -> None:
    changed(small, f"rollouts.token_budget={BATCH}")
    with pytest.raises(
        ConfigError, match=rf"token_budget is {BATCH - 1}, less than a token for each of the {BATCH} resp"
    ):
        changed(small, f"rollouts.token_budget={BATCH - 1}")
