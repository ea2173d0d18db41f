"""The page of an exported policy."""

from dataclasses import replace

import yaml

from reval_core.policies.model_card import Origin, model_card

ORIGIN = Origin(
    policy_id="pol_1",
    run_id="small-1",
    rounds=4,
    updates=8,
    responses=32,
    problems=8,
    chain=("small-1", "first-2"),
    settings={
        "model.path": "org/base",
        "problems.0.path": "/home/me/secret/place/mine.jsonl",
        "objective.beta": 0.01,
        "prompt.suffix": "a `tick`\n| and a bar",
        "store.lock_wait_s": 30.0,
    },
    versions={"torch": "2.13.0"},
    weights_checksum="abc",
)
RESULT = {
    "benchmark": "math500",
    "metric": "avg@4",
    "value": 0.5,
    "low": 0.4,
    "high": 0.6,
    "problem_count": 500,
    "samples_per_problem": 4,
    "verifier_id": "ver_1",
}


def header(card: str) -> dict[str, object]:
    _, text, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(text))


def test_it_tells_results_settings_and_lineage() -> None:
    card = model_card("tuned", ORIGIN, [RESULT])
    assert header(card)["base_model"] == "org/base"
    assert header(card)["model-index"] == [
        {
            "name": "tuned",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "math500", "type": "math500"},
                    "metrics": [{"type": "avg@4", "value": 0.5}],
                }
            ],
        }
    ]
    assert "| `math500` | avg@4 | 0.500 [0.400, 0.600] | 500 | 4 | `ver_1` |" in card
    assert "| `objective.beta` | `0.01` |" in card
    assert "`small-1`, `first-2`" in card
    assert "store.lock_wait_s" not in card


def test_a_place_on_a_machine_is_not_told_and_nothing_breaks_a_table() -> None:
    card = model_card("tuned", replace(ORIGIN, settings=ORIGIN.settings | {"model.path": "~/models/own"}), [])
    assert "base_model" not in header(card)
    assert "- `mine.jsonl`" in card
    assert "secret" not in card
    assert "~/models" not in card
    assert "| `prompt.suffix` | `a 'tick' \\| and a bar` |" in card
    assert "Not evaluated" in card
