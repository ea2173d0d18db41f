"""The whole command under fire: killed four times, given twice at once, without Prefect's results.

`benchmarks/recovery.py` kills a quickstart fifty times by the same program.
"""

import shutil
from pathlib import Path

import pytest
from small_run import BATCH, Finished, changed, lineage, responses

from benchmarks.recovery import Chain, State, end, run, started_stage, stored
from reval_core.config import Config

pytestmark = [pytest.mark.slow, pytest.mark.long]
KILLS, WAIT_S = 4, 480


@pytest.fixture
def chain(small: Config, benchmark_file: Path, tmp_path: Path) -> Chain:
    """The small run with an evaluation at its end."""
    config = tmp_path / "small.yaml"
    evaluated = changed(small, "evaluation.after=true", f"evaluation.benchmarks=['{benchmark_file}']")
    config.write_text(evaluated.to_yaml())
    (tmp_path / "state").mkdir()
    return Chain(tmp_path / "state", config, KILLS, aimed=True)


def test_kills_generate_nothing_again_and_the_weights_are_the_same_bits(chain: Chain) -> None:
    found = run(chain, seed=0, slice_s=float("inf"))
    state = State.read(chain.folder / "state.json", seed=0)
    assert found is not None
    assert {name: count for name, count in found.items() if count} == {}, state
    assert len(state.killed) == KILLS


def test_prefects_results_decide_nothing_and_two_commands_at_once_do_the_work_once(
    chain: Chain, finished: Finished
) -> None:
    home = chain.chain
    process, journal = chain.start(home, "killed")
    worker = started_stage(process, journal, "learn")
    assert worker is not None
    end(process, worker, "everything")
    results = home.prefect / "storage"
    assert any(results.iterdir())
    shutil.rmtree(results)
    before = stored(home)
    assert len(before) >= BATCH

    both = [chain.start(home, name) for name in ("one", "other")]
    codes = [process.wait(WAIT_S) for process, _ in both]
    told = [(chain.folder / f"{name}.log").read_text() for name in ("one", "other")]
    assert 0 in codes, told
    refused = [text for code, text in zip(codes, told, strict=True) if code]
    assert all("is being worked on by process" in text for text in refused), told
    sampled = [key for _, journal in both for key in journal.samples()]
    assert not before & set(sampled)
    assert before | set(sampled) == stored(home)
    assert len(sampled) == len(set(sampled))
    assert responses(home) == responses(finished.home)
    assert lineage(home, finished.outcome.run_id) == lineage(finished.home, finished.outcome.run_id)
