"""Advantages and the clipped loss of the policy-gradient baselines, by hand."""

import pytest
import torch

from reval_core.learning.policy_gradient import group_advantages, policy_gradient_loss

REWARDS = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])
ONE_GROUP = torch.zeros(8, dtype=torch.long)


def test_grpo_advantages_of_two_right_in_eight() -> None:
    expected = [1.6201817 if reward else -0.5400606 for reward in REWARDS.tolist()]
    assert group_advantages(REWARDS, ONE_GROUP).tolist() == pytest.approx(expected, abs=1e-6)


def test_dr_grpo_advantages_of_two_right_in_eight() -> None:
    expected = [0.75 if reward else -0.25 for reward in REWARDS.tolist()]
    assert group_advantages(REWARDS, ONE_GROUP, normalise=False).tolist() == expected


def test_groups_are_apart_in_any_order_and_equal_rewards_give_zero() -> None:
    reward = torch.tensor([1.0, 5.0, 0.0, 5.0])
    group = torch.tensor([7, 3, 7, 3])
    assert group_advantages(reward, group, normalise=False).tolist() == [0.5, 0.0, -0.5, 0.0]
    assert group_advantages(reward, group)[[1, 3]].tolist() == [0.0, 0.0]


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        group_advantages(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))


def test_at_the_rounds_start_the_loss_is_minus_the_token_mean_of_the_advantage() -> None:
    logprob = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    loss = policy_gradient_loss(
        token_logprob=logprob,
        old_token_logprob=logprob.detach(),
        advantage=torch.tensor([2.0, -1.0]),
        response_mask=mask,
        clip_low=0.2,
        clip_high=0.28,
    )
    assert loss.item() == pytest.approx(-(2 + 2 - 1) / 3)
    loss.backward()
    torch.testing.assert_close(logprob.grad, -torch.tensor([[2.0, 2.0, 0.0], [-1.0, 0.0, 0.0]]) / 3)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "flows"),
    [
        (1.5, 1.0, -1.28, False),  # too far up in a good direction: clipped at 1 + high
        (1.2, 1.0, -1.2, True),
        (0.5, 1.0, -0.5, True),
        (0.5, -1.0, 0.8, False),  # too far down in a good direction: clipped at 1 - low
        (1.5, -1.0, 1.5, True),
    ],
)
def test_the_clip_is_asymmetric_and_one_sided(ratio: float, advantage: float, expected: float, flows: bool) -> None:
    logprob = torch.tensor([[ratio]]).log().requires_grad_()
    loss = policy_gradient_loss(
        token_logprob=logprob,
        old_token_logprob=torch.zeros(1, 1),
        advantage=torch.tensor([advantage]),
        response_mask=torch.ones(1, 1),
        clip_low=0.2,
        clip_high=0.28,
    )
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert (logprob.grad.abs().item() > 0) == flows


def test_padding_cannot_reach_the_loss() -> None:
    logprob = torch.tensor([[-1.0, -float("inf")]], requires_grad=True)
    loss = policy_gradient_loss(
        token_logprob=logprob,
        old_token_logprob=torch.tensor([[-1.0, 500.0]]),
        advantage=torch.tensor([1.0]),
        response_mask=torch.tensor([[1, 0]]),
        clip_low=0.2,
        clip_high=0.2,
        weight=torch.tensor([0.5]),
        count=4,
    )
    loss.backward()
    assert loss.item() == pytest.approx(-0.5 / 4)
    assert logprob.grad.tolist() == [[-0.125, 0.0]]


def test_what_is_missing_is_named() -> None:
    ones = torch.ones(1, 1)
    arguments = {"token_logprob": ones, "old_token_logprob": ones, "advantage": torch.ones(1)}
    for name in arguments:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            policy_gradient_loss(**{**arguments, name: None}, response_mask=ones, clip_low=0.2, clip_high=0.2)
    with pytest.raises(ValueError, match="at least one token"):
        policy_gradient_loss(**arguments, response_mask=0 * ones, clip_low=0.2, clip_high=0.2)
