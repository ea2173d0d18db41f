"""Problem sources are read again at every start: what is new comes first, whatever the order of the epoch was."""

import json
from pathlib import Path

import pytest
from small_run import PROMPTS, changed, lineage, train, value

from flows import planning
from reval_core.config import Config
from reval_core.home import Home
from reval_core.problems.arithmetic import arithmetic_problems
from reval_core.store import Store, schedule

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def folder(tmp_path: Path, small: Config) -> Path:
    """A folder of problem files, with one of six."""
    made = tmp_path / "problems"
    made.mkdir()
    put(made / "a.jsonl", 0, 6)
    return made


@pytest.fixture
def config(small: Config, folder: Path) -> Config:
    return changed(small, f"problems=[{{path: '{folder}'}}]", "run.iterations=2")


def put(path: Path, first: int, last: int) -> list[str]:
    """Write some arithmetic problems; returns their questions."""
    chosen = arithmetic_problems("train")[first * 7 : last * 7 : 7]
    path.write_text("".join(json.dumps(problem) + "\n" for problem in chosen), encoding="utf-8")
    return [str(problem["question"]) for problem in chosen]


def drawn(home: Home, run_id: str, iteration: int) -> list[str]:
    """Questions of a round, in order."""
    with Store(home.database).read() as connection:
        names = schedule.planned_round(connection, run_id, iteration) or []
        asked = dict(connection.execute("SELECT problem_id, question FROM store.problems").fetchall())
    return [asked[name] for name in names]


@pytest.mark.long
def test_what_is_new_is_drawn_next_and_then_with_the_others(config: Config, folder: Path, home: Home) -> None:
    run_id = train(config, home).run_id
    new = put(folder / "b.jsonl", 20, 23)
    more = changed(config, "run.iterations=4")
    assert train(more, home).run_id == run_id
    third, fourth = drawn(home, run_id, 2), drawn(home, run_id, 3)
    assert set(third[:3]) == set(new)
    assert not set(new) & set(third[3:] + fourth)  # the epoch has nine, each once: three new, then the six known
    assert len({*third, *fourth}) == 2 * PROMPTS


@pytest.mark.long
def test_what_no_round_has_drawn_yet_stays_new(config: Config, folder: Path, home: Home) -> None:
    run_id = train(config, home).run_id
    new = put(folder / "b.jsonl", 20, 26)
    train(changed(config, "run.iterations=3"), home)
    left = set(new) - set(drawn(home, run_id, 2))
    assert len(left) == 2
    newer = put(folder / "c.jsonl", 30, 32)
    train(changed(config, "run.iterations=4"), home)
    assert set(drawn(home, run_id, 3)) == left | set(newer)


def test_rows_that_are_known_by_their_content_are_not_new(config: Config, folder: Path, home: Home) -> None:
    run_id = train(config, home).run_id
    (folder / "again.jsonl").write_bytes((folder / "a.jsonl").read_bytes())
    train(changed(config, "run.iterations=3"), home)
    epochs = "SELECT max(epoch) FROM store.problem_schedule WHERE run_id = $run_id"
    assert value(home, epochs, run_id=run_id) == 1  # 12 problems of three rounds are two epochs of six


@pytest.mark.long
def test_a_start_that_was_killed_after_it_found_them_still_draws_them_next(
    config: Config, folder: Path, home: Home
) -> None:
    run_id = train(config, home).run_id
    new = put(folder / "b.jsonl", 20, 22)
    with Store(home.database).read() as connection:
        known = [name for (name,) in connection.execute("SELECT problem_id FROM store.problems").fetchall()]
    train(config, home)  # finds them; no round is left
    with Store(home.database).read() as connection:
        since = schedule.since(connection, run_id)
    came = {name for name, first_round in since.items() if first_round == 2}
    assert len(came) == 2
    assert not came & set(known)
    train(changed(config, "run.iterations=3"), home)
    assert set(drawn(home, run_id, 2)[:2]) == set(new)


@pytest.mark.long
def test_a_fork_may_have_other_problems(config: Config, home: Home, tmp_path: Path) -> None:
    parent = train(config, home).run_id
    other = put(tmp_path / "other.jsonl", 40, 46)
    forked = changed(config, f"problems.0.path={tmp_path / 'other.jsonl'}")
    branch = planning.fork(forked, home, start_from=f"{parent}@1", force=None)
    run_id = train(forked, home, branch).run_id
    assert lineage(home, run_id)[:1] == lineage(home, parent)[:1]
    assert set(drawn(home, run_id, 1)) <= set(other)
    assert drawn(home, run_id, 0) == drawn(home, parent, 0)


@pytest.mark.long
def test_a_fork_of_an_earlier_round_asks_what_its_parent_asked(config: Config, folder: Path, home: Home) -> None:
    """What came to the parent later comes to the fork in the same round, so its responses can be shared."""
    parent = train(config, home).run_id
    put(folder / "b.jsonl", 20, 23)
    train(changed(config, "run.iterations=4"), home)
    forked = changed(config, "run.iterations=4", "objective.beta=0.2")
    branch = planning.fork(forked, home, start_from=f"{parent}@1", force=None)
    run_id = train(forked, home, branch).run_id
    for iteration in range(4):
        assert drawn(home, run_id, iteration) == drawn(home, parent, iteration)
