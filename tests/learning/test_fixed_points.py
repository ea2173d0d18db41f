"""Where the objectives lead on trees of three tokens and three steps that can be enumerated, in float64.

"full": 27 responses of three tokens. "eos": token 2 ends a response, 15 responses. The optimum is known in closed form:
pi* = pi_ref exp(r / beta) / Z over whole responses. The logits of all states are the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor

from reval_core.learning.objective import bellman_loss, trajectory_residual

BETA = 0.5


@dataclass(frozen=True)
class Tree:
    states: Tensor
    """[N, 3] state before each token; 0 where the response has ended."""
    actions: Tensor
    """[N, 3]"""
    mask: Tensor
    """[N, 3]"""
    reward: Tensor
    """[N]"""
    reference: Tensor
    """[S, 3] logits; the root is state 0."""

    def scores(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each response, [N], and V of the root, []."""
        tokens = logits.log_softmax(1)[self.states, self.actions]
        return torch.where(self.mask, tokens, 0.0).sum(1), logits[0].logsumexp(0)

    def residual(self, logits: Tensor, **settings: object) -> Tensor:
        (logprob, value), (ref_logprob, ref_value) = self.scores(logits), self.scores(self.reference)
        return trajectory_residual(
            logprob=logprob,
            ref_logprob=ref_logprob,
            root_value=value.expand(len(logprob)),
            ref_root_value=ref_value.expand(len(logprob)),
            reward=self.reward,
            beta=BETA,
            group=torch.zeros(len(logprob), dtype=torch.long),
            **settings,
        )

    def log_z(self) -> Tensor:
        return (self.scores(self.reference)[0] + self.reward / BETA).logsumexp(0)

    def divergence_from_optimum(self, logits: Tensor) -> float:
        """KL(pi* || pi)."""
        best = self.scores(self.reference)[0] + self.reward / BETA - self.log_z()
        return (best.exp() * (best - self.scores(logits)[0])).sum().item()


def _tree(eos: bool) -> Tree:
    responses = {(*p[: p.index(2)], 2) if eos and 2 in p else p for p in product(range(3), repeat=3)}
    prefixes = sorted({r[:h] for r in responses for h in range(len(r))}, key=lambda p: (len(p), p))
    state = {prefix: index for index, prefix in enumerate(prefixes)}
    rows = sorted(responses)
    states = torch.tensor([[state[r[:h]] if h < len(r) else 0 for h in range(3)] for r in rows])
    actions = torch.tensor([[r[h] if h < len(r) else 0 for h in range(3)] for r in rows])
    mask = torch.tensor([[h < len(r) for h in range(3)] for r in rows])
    reward = torch.tensor([float(sum(r) % 4 == 2 and r[0] != 2) for r in rows], dtype=torch.float64)
    grid = torch.arange(3 * len(state), dtype=torch.float64).view(-1, 3)
    reference = 1.3 * torch.sin(1.0 + 2.1 * grid)
    reference[0] += 6.0  # root values of language models are far from 0
    return Tree(states, actions, mask, reward, reference)


TREES = {"full": _tree(eos=False), "eos": _tree(eos=True)}


@pytest.fixture(params=["full", "eos"])
def tree(request: pytest.FixtureRequest) -> Tree:
    return TREES[request.param]


def _start(tree: Tree) -> Tensor:
    wiggle = 0.4 * torch.cos(torch.arange(tree.reference.numel(), dtype=torch.float64)).view_as(tree.reference)
    return (tree.reference + wiggle).requires_grad_()


def _minimise(tree: Tree, loss: Callable[[Tensor], Tensor]) -> Tensor:
    logits = _start(tree)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=600, tolerance_grad=1e-12, tolerance_change=0, history_size=40, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach()


def _descend(tree: Tree, loss: Callable[[Tensor], Tensor], steps: int = 1500) -> Tensor:
    """Gradient descent with momentum, for what is the gradient of no function."""
    logits = _start(tree)
    optimizer = torch.optim.SGD([logits], lr=0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(logits).backward()
        optimizer.step()
    return logits.detach()


def _skewed(tree: Tree) -> Tensor:
    """Weights of a behaviour that is neither uniform nor the reference, mean 1."""
    weight = 1.5 + torch.sin(torch.arange(len(tree.reward), dtype=torch.float64))
    return weight / weight.mean()


def test_the_trees_are_what_they_say() -> None:
    assert len(TREES["full"].reward) == 27
    assert len(TREES["full"].reference) == 13
    assert len(TREES["eos"].reward) == 15
    for tree in TREES.values():
        assert tree.scores(tree.reference)[0].exp().sum().item() == pytest.approx(1.0)
        assert 0 < tree.reward.mean() < 0.5
        assert tree.divergence_from_optimum(tree.reference) > 0.1


@pytest.mark.parametrize("skewed", [False, True], ids=["uniform", "skewed"])
def test_reval_finds_the_optimum_from_off_policy_data_and_log_z_at_the_root(tree: Tree, skewed: bool) -> None:
    weight = _skewed(tree) if skewed else None
    logits = _minimise(tree, lambda z: bellman_loss(tree.residual(z), weight=weight))
    assert tree.divergence_from_optimum(logits) < 1e-9
    gap = tree.scores(logits)[1] - tree.scores(tree.reference)[1]
    assert gap.item() == pytest.approx(tree.log_z().item(), abs=1e-4)


def test_reval_by_plain_gradient_descent_goes_there_too() -> None:
    tree = TREES["eos"]
    logits = _descend(tree, lambda z: bellman_loss(tree.residual(z)))
    assert tree.divergence_from_optimum(logits) < 1e-4


def test_tbrm_finds_the_same_policy_with_log_z_itself_as_root_value(tree: Tree) -> None:
    logits = _minimise(tree, lambda z: bellman_loss(tree.residual(z, baseline="tbrm")))
    assert tree.divergence_from_optimum(logits) < 1e-9
    assert tree.scores(logits)[1].item() == pytest.approx(tree.log_z().item(), abs=1e-4)


def test_vargrad_finds_the_same_policy(tree: Tree) -> None:
    logits = _minimise(tree, lambda z: bellman_loss(tree.residual(z, baseline="vargrad")))
    assert tree.divergence_from_optimum(logits) < 1e-9


def test_the_analytic_log_z_is_log_z_at_the_optimum_alone_and_the_policy_stays_there(tree: Tree) -> None:
    at = tree.scores(tree.reference)[0] + tree.reward / BETA - tree.log_z()  # log pi*
    ref_logprob = tree.scores(tree.reference)[0]
    numbers = {"ref_logprob": ref_logprob, "reward": tree.reward, "beta": BETA, "baseline": "logz"}
    group = torch.zeros(len(at), dtype=torch.long)
    rest = trajectory_residual(logprob=at, **numbers, group=group)
    assert (rest.abs() < 1e-12).all()
    assert (trajectory_residual(logprob=ref_logprob, **numbers, group=group).abs() > 1e-3).any()
    nothing = trajectory_residual(logprob=ref_logprob, **{**numbers, "reward": 0 * tree.reward}, group=group)
    assert (nothing.abs() < 1e-12).all()  # without reward it rests at the reference
    logits = _descend(tree, lambda z: bellman_loss(tree.residual(z, baseline="logz")), steps=300)
    assert tree.divergence_from_optimum(logits) < 1e-6


def test_regression_without_values_ends_elsewhere_on_off_policy_data(tree: Tree) -> None:
    logits = _minimise(tree, lambda z: bellman_loss(tree.residual(z, baseline="regression")))
    assert tree.divergence_from_optimum(logits) > 0.01


def test_without_the_gradient_through_the_root_value_it_ends_elsewhere_too(tree: Tree) -> None:
    logits = _descend(tree, lambda z: bellman_loss(tree.residual(z, value_gradient="detach")))
    assert tree.divergence_from_optimum(logits) > 0.01
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(bellman_loss(tree.residual(logits, value_gradient="detach")), logits)
    assert gradient.norm() < 1e-3  # it has stopped, and not there


def test_on_policy_the_detached_gradient_is_that_of_the_regularised_return(tree: Tree) -> None:
    logits = _start(tree)
    logprob = tree.scores(logits)[0]
    residual = tree.residual(logits, value_gradient="detach")
    (semi,) = torch.autograd.grad(bellman_loss(residual, weight=logprob.exp().detach(), count=1), logits)
    logprob = tree.scores(logits)[0]
    gain = tree.reward - BETA * (logprob - tree.scores(tree.reference)[0])
    (ascent,) = torch.autograd.grad((logprob.exp() * gain).sum(), logits)
    torch.testing.assert_close(semi, -2 / BETA * ascent, rtol=0, atol=1e-12)


def test_at_the_reference_the_full_gradient_adds_the_push_on_the_root_value(tree: Tree) -> None:
    logits = tree.reference.clone().requires_grad_()
    logprob, value = tree.scores(logits)
    mean_reward = (logprob.exp() * tree.reward).sum()
    (of_mean,) = torch.autograd.grad(mean_reward, logits, retain_graph=True)
    (of_value,) = torch.autograd.grad(value, logits, retain_graph=True)
    loss = bellman_loss(tree.residual(logits), weight=logprob.exp().detach(), count=1)
    (full,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(full, -2 / BETA * (of_mean + mean_reward * of_value), rtol=0, atol=1e-12)


def test_an_offset_is_free_at_every_state_but_the_root(tree: Tree) -> None:
    logits = _start(tree).detach()
    residual = tree.residual(logits)
    shifted = logits.clone()
    shifted[1:] += torch.linspace(-3, 3, len(logits) - 1, dtype=torch.float64)[:, None]
    torch.testing.assert_close(tree.residual(shifted), residual, rtol=0, atol=1e-12)
    shifted = logits.clone()
    shifted[0] += 0.7
    torch.testing.assert_close(tree.residual(shifted), residual + 0.7, rtol=0, atol=1e-12)


def test_without_reward_reval_rests_at_the_reference_and_tbrm_does_not(tree: Tree) -> None:
    logits = tree.reference.clone().requires_grad_()
    shaped = tree.residual(logits) + tree.reward / BETA
    assert (shaped.abs() < 1e-12).all()
    unshaped = tree.residual(logits, baseline="tbrm") + tree.reward / BETA
    torch.testing.assert_close(unshaped, tree.scores(tree.reference)[1].expand_as(unshaped), rtol=0, atol=1e-12)
