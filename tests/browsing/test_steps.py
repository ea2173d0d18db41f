"""Implicit step rewards against the formula, computed by hand from the models' logits."""

import numpy as np
import pytest
import torch
from browsed import ADAPTED, BETA, IDS, LEARNED, PRUNED, Browsed, Page, text_of
from starlette.testclient import TestClient
from torch import nn

from reval_core.browsing.steps import Scorer
from reval_core.errors import PolicyError
from reval_core.policies.folder import load_adapter, load_model
from reval_core.store import Store

PROMPT = (3, 12, 4)


@pytest.fixture(scope="module")
def scorer(browsed: Browsed) -> Scorer:
    return Scorer(browsed.home, Store(browsed.home.database))


def by_hand(model: nn.Module, ids: tuple[int, ...]) -> np.ndarray:
    """[T] log-probability of each token of the response."""
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPT, *ids]])).logits[0].double()
    logprob = logits.log_softmax(-1)
    return np.array([float(logprob[len(PROMPT) - 1 + place, token]) for place, token in enumerate(ids)])


@pytest.mark.parametrize("place", range(4))
def test_step_rewards_are_the_formula(browsed: Browsed, scorer: Scorer, place: int) -> None:
    steps = scorer.steps(browsed.training[place], LEARNED, browsed.base_id)
    logprob = by_hand(load_model(browsed.home.policies / LEARNED), IDS[place])
    ref_logprob = by_hand(load_model(browsed.base), IDS[place])
    assert steps.beta == BETA
    np.testing.assert_allclose(steps.logprob, logprob, atol=1e-5)
    np.testing.assert_allclose(steps.ref_logprob, ref_logprob, atol=1e-5)
    np.testing.assert_allclose(steps.reward, BETA * (logprob - ref_logprob), atol=1e-5)
    assert float(np.abs(steps.reward).max()) > 1e-3
    assert list(steps.pieces) == text_of(IDS[place], browsed.base)


def test_an_adapter_stands_over_its_base(browsed: Browsed, scorer: Scorer) -> None:
    steps = scorer.steps(browsed.training[2], ADAPTED, browsed.base_id)
    model, _ = load_adapter(browsed.home.policies / ADAPTED, ADAPTED, load_model(browsed.base), browsed.base_id)
    np.testing.assert_allclose(steps.logprob, by_hand(model, IDS[2]), atol=1e-5)
    np.testing.assert_allclose(steps.ref_logprob, by_hand(load_model(browsed.base), IDS[2]), atol=1e-5)
    assert float(np.abs(steps.reward).max()) > 1e-4


def test_a_reference_over_itself_gives_zero(browsed: Browsed, scorer: Scorer) -> None:
    steps = scorer.steps(browsed.training[0], browsed.base_id, browsed.base_id)
    assert (steps.beta, steps.reward.tolist()) == (None, [0.0] * 4)


def test_tokens(browsed: Browsed, scorer: Scorer) -> None:
    found = scorer.pieces(browsed.training[0], LEARNED)
    assert found == list(zip(IDS[0], text_of(IDS[0], browsed.base), strict=True))


def test_a_pruned_policy_says_what_to_do(browsed: Browsed, scorer: Scorer, client: TestClient) -> None:
    with pytest.raises(PolicyError, match="not saved"):
        scorer.steps(browsed.training[0], PRUNED, browsed.base_id)
    answer = client.get(f"/trajectory/{browsed.training[0]}/steps", params={"policy": PRUNED})
    assert answer.status_code == 409
    assert f"`reval evaluate {PRUNED}`" in Page(answer.text).text


def test_the_page_has_every_token_with_its_values_and_the_running_sum(browsed: Browsed, client: TestClient) -> None:
    answer = client.get(f"/trajectory/{browsed.training[0]}/steps")  # by default the newest saved one of the run
    page = Page(answer.text)
    titles = [value for name, value in page.attributes if name == "title" and value.startswith("token ")]
    reward = BETA * (
        by_hand(load_model(browsed.home.policies / LEARNED), IDS[0]) - by_hand(load_model(browsed.base), IDS[0])
    )
    assert [float(title.split()[2]) for title in titles] == pytest.approx(reward, abs=2e-5)
    assert f"{reward.sum():+.3g}"[:5] in page.text
    assert {"svg", "polyline"} <= page.elements
    selected = client.get(f"/trajectory/{browsed.training[0]}/steps", params={"policy": browsed.base_id})
    assert "all of it is zero" in selected.text
