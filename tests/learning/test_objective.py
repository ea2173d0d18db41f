"""The residual and the loss against hand-computed numbers and against autograd of the bare formula."""

import math

import pytest
import torch

from reval_core.learning.objective import bellman_loss, group_mean, stepwise_residuals, trajectory_residual

HAND = {
    "logprob": torch.tensor([-3.0, -5.0, -2.0], dtype=torch.float64),
    "ref_logprob": torch.tensor([-4.0, -4.5, -2.0], dtype=torch.float64),
    "root_value": torch.tensor([7.0, 6.0, 5.0], dtype=torch.float64),
    "ref_root_value": torch.tensor([6.5, 6.0, 5.5], dtype=torch.float64),
    "reward": torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64),
    "beta": 0.5,
}


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("reval", [0.5 + 1.0 - 2.0, 0.0 - 0.5, -0.5 + 0.0 - 2.0]),
        ("tbrm", [7.0 + 1.0 - 2.0, 6.0 - 0.5, 5.0 + 0.0 - 2.0]),
        ("regression", [1.0 - 2.0, -0.5, -2.0]),
    ],
)
def test_residual_by_hand(baseline: str, expected: list[float]) -> None:
    assert trajectory_residual(**HAND, baseline=baseline).tolist() == expected


def test_the_default_is_reval_with_the_full_gradient() -> None:
    root = HAND["root_value"].clone().requires_grad_()
    residual = trajectory_residual(**{**HAND, "root_value": root})
    assert torch.equal(residual, trajectory_residual(**HAND, baseline="reval"))
    residual.sum().backward()
    assert root.grad.tolist() == [1.0, 1.0, 1.0]


def test_vargrad_subtracts_the_mean_over_the_group() -> None:
    numbers = {name: HAND[name][[0, 2, 0, 1]] for name in ("logprob", "ref_logprob", "reward")}
    residual = trajectory_residual(**numbers, beta=0.5, baseline="vargrad", group=torch.tensor([4, 4, 9, 9]))
    # regression residuals -1 and -2 with mean -1.5, -1 and -0.5 with mean -0.75
    assert residual.tolist() == [0.5, -0.5, -0.25, 0.25]


def test_vargrad_mean_is_detached_and_its_gradient_is_that_of_the_variance() -> None:
    logprob = torch.tensor([-3.0, -5.0, -2.0, -1.0], dtype=torch.float64, requires_grad=True)
    arguments = {"ref_logprob": torch.zeros(4), "reward": torch.tensor([1.0, 0.0, 0.0, 1.0]), "beta": 0.5}
    group = torch.tensor([0, 0, 1, 1])
    residual = trajectory_residual(logprob=logprob, **arguments, baseline="vargrad", group=group)
    (of_one,) = torch.autograd.grad(residual[0], logprob, retain_graph=True)
    assert of_one.tolist() == [1.0, 0.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(bellman_loss(residual), logprob)
    target = logprob - arguments["reward"] / 0.5
    variance = sum((part - part.mean()).square().sum() for part in (target[:2], target[2:])) / 4
    (expected,) = torch.autograd.grad(variance, logprob)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-14)


def test_logz_adds_the_log_of_the_mean_exponential_of_the_group() -> None:
    numbers = {name: HAND[name][[0, 2, 0, 1]] for name in ("logprob", "ref_logprob", "reward")}
    residual = trajectory_residual(**numbers, beta=0.5, baseline="logz", group=torch.tensor([4, 4, 9, 9]))
    first, second = math.log((math.e + math.e**2) / 2), math.log((math.e + math.e**0.5) / 2)
    assert residual.tolist() == pytest.approx([first - 1, first - 2, second - 1, second - 0.5])


@pytest.mark.parametrize("baseline", ["vargrad", "logz"])
def test_a_group_of_one_is_refused(baseline: str) -> None:
    with pytest.raises(ValueError, match="at least two"):
        trajectory_residual(**HAND, baseline=baseline, group=torch.tensor([0, 1, 0]))
    assert group_mean(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([2, 2, 2])).tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref_root_value": None}, "ref_root_value is missing"),
        ({"root_value": None}, "root_value is missing"),
        ({"ref_logprob": None}, "ref_logprob is missing"),
        ({"baseline": "vargrad"}, "group is missing"),
        ({"baseline": "none"}, "baseline 'none'"),
        ({"value_gradient": "stop"}, "value_gradient 'stop'"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"reward": torch.zeros(3, 1)}, r"reward has shape \(3, 1\)"),
    ],
)
def test_what_is_missing_or_misshapen_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trajectory_residual(**{**HAND, **change})


@pytest.mark.parametrize("baseline", ["tbrm", "regression", "vargrad", "logz"])
def test_scores_that_a_baseline_does_not_use_may_be_left_out(baseline: str) -> None:
    change = {"ref_root_value": None, "group": torch.zeros(3, dtype=torch.long)}
    if baseline != "tbrm":
        change["root_value"] = None
    assert torch.isfinite(trajectory_residual(**{**HAND, **change}, baseline=baseline)).all()


def test_half_precision_is_raised_to_float32_before_anything_is_squared() -> None:
    half = {name: value.half() if torch.is_tensor(value) else value for name, value in HAND.items()}
    residual = trajectory_residual(**{**half, "beta": 0.002})
    assert residual.dtype == torch.float32
    assert bellman_loss(residual).item() == pytest.approx((498.5**2 + 0.5**2 + 500.5**2) / 3)  # above float16's largest


def test_loss_by_hand_with_weight_and_count() -> None:
    residual = torch.tensor([1.0, -2.0, 3.0])
    assert bellman_loss(residual).item() == pytest.approx(14 / 3)
    assert bellman_loss(residual, count=7).item() == pytest.approx(2.0)
    weight = torch.tensor([1.0, 0.5, 0.0])
    assert bellman_loss(residual, weight=weight).item() == pytest.approx(1.0)
    parts = [bellman_loss(residual[:1], count=3), bellman_loss(residual[1:], count=3)]
    assert sum(part.item() for part in parts) == pytest.approx(14 / 3)


@pytest.mark.parametrize(("residual", "count"), [(torch.ones(2), 0), (torch.ones(0), None)])
def test_a_loss_over_nothing_is_refused(residual: torch.Tensor, count: int | None) -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        bellman_loss(residual, count=count)


def _scores(logits: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and values of one response: logits [H, A], actions [H]."""
    return logits.log_softmax(1).gather(1, actions[:, None]).squeeze(1), logits.logsumexp(1)


def test_stepwise_residuals_add_up_to_delta_and_vanish_at_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    width, lengths, starts = 6, [4, 1, 6], [0, 3, 0]
    kinds = ("token_logprob", "ref_token_logprob", "value", "ref_value")
    # what stands outside the response must not matter
    columns = {kind: torch.full((3, width), 1e6, dtype=torch.float64) for kind in kinds}
    mask = torch.zeros(3, width, dtype=torch.bool)
    expected = []
    reward, beta = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64), 0.25
    for row, (length, start) in enumerate(zip(lengths, starts, strict=True)):
        span = slice(start, start + length)
        mask[row, span] = True
        actions = torch.randint(5, (length,), generator=generator)
        for prefix in ("", "ref_"):
            logits = 3 * torch.randn(length, 5, generator=generator, dtype=torch.float64)
            columns[f"{prefix}token_logprob"][row, span], columns[f"{prefix}value"][row, span] = _scores(
                logits, actions
            )
        expected.append(
            trajectory_residual(
                logprob=columns["token_logprob"][row, span].sum()[None],
                ref_logprob=columns["ref_token_logprob"][row, span].sum()[None],
                root_value=columns["value"][row, start][None],
                ref_root_value=columns["ref_value"][row, start][None],
                reward=reward[row][None],
                beta=beta,
            )
        )
    steps = stepwise_residuals(**columns, response_mask=mask, reward=reward, beta=beta)
    torch.testing.assert_close(steps.sum(1), torch.cat(expected), rtol=0, atol=1e-12)
    assert (steps[~mask] == 0).all()
    same = {**columns, "token_logprob": columns["ref_token_logprob"], "value": columns["ref_value"]}
    assert (stepwise_residuals(**same, response_mask=mask, reward=0 * reward, beta=beta) == 0).all()


def test_stepwise_residuals_by_hand() -> None:
    """Two steps: Q - (r + log pi_ref + V_ref - V_ref' + V'), reward 1 at the last, beta 0.5."""
    steps = stepwise_residuals(
        token_logprob=torch.tensor([[-1.0, -2.0]]),
        ref_token_logprob=torch.tensor([[-1.5, -1.0]]),
        value=torch.tensor([[3.0, 4.0]]),
        ref_value=torch.tensor([[2.0, 5.0]]),
        response_mask=torch.tensor([[1, 1]]),
        reward=torch.tensor([1.0]),
        beta=0.5,
    )
    assert steps.tolist() == [[(3 - 1) - (-1.5 + 2 - 5 + 4), (4 - 2) - (2 - 1 + 5)]]


def test_a_broken_response_is_refused_stepwise() -> None:
    grid = torch.zeros(1, 3)
    arguments = dict.fromkeys(("token_logprob", "ref_token_logprob", "value", "ref_value"), grid)
    for mask in ([[1, 0, 1]], [[0, 0, 0]]):
        with pytest.raises(ValueError, match="unbroken"):
            stepwise_residuals(**arguments, response_mask=torch.tensor(mask), reward=torch.zeros(1), beta=1.0)


def _from_logits(
    logits: torch.Tensor, reference: torch.Tensor, actions: torch.Tensor, **settings: object
) -> torch.Tensor:
    tokens, values = _scores(logits, actions)
    ref_tokens, ref_values = _scores(reference, actions)
    return trajectory_residual(
        logprob=tokens.sum()[None],
        ref_logprob=ref_tokens.sum()[None],
        root_value=values[:1],
        ref_root_value=ref_values[:1],
        reward=torch.ones(1, dtype=torch.float64),
        beta=0.5,
        **settings,
    )


def test_the_first_token_counts_with_its_raw_logit_and_detach_differs_there_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    reference = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    actions = torch.tensor([2, 0, 4, 1])
    later = _scores(logits, actions)[0][1:].sum() - _scores(reference, actions)[0][1:].sum()
    raw = (logits[0, 2] - reference[0, 2] + later - 1 / 0.5)[None]

    full = _from_logits(logits, reference, actions)
    detached = _from_logits(logits, reference, actions, value_gradient="detach")
    torch.testing.assert_close(full, raw, rtol=0, atol=1e-14)
    assert torch.equal(full, detached)

    (of_full,) = torch.autograd.grad(bellman_loss(full), logits)
    (of_raw,) = torch.autograd.grad(bellman_loss(raw), logits)
    (of_detached,) = torch.autograd.grad(bellman_loss(detached), logits)
    torch.testing.assert_close(of_full, of_raw, rtol=0, atol=1e-14)
    assert torch.equal(of_full[1:], of_detached[1:])
    onehot = torch.nn.functional.one_hot(actions[0], 5)
    torch.testing.assert_close(of_full[0], 2 * full.item() * onehot.double(), rtol=0, atol=1e-13)
    expected = 2 * full.item() * (onehot - logits[0].softmax(0))
    torch.testing.assert_close(of_detached[0], expected.detach(), rtol=0, atol=1e-13)


def test_signed_rewards_are_binary_ones_at_half_the_beta_up_to_a_constant() -> None:
    binary = trajectory_residual(**{**HAND, "beta": 0.25})
    signed = trajectory_residual(**{**HAND, "reward": 2 * HAND["reward"] - 1})
    assert (signed - binary).tolist() == [2.0, 2.0, 2.0]
