import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from reval_core.errors import PolicyError
from reval_core.rollouts import SamplingSettings
from reval_core.rollouts.noise import uniform
from reval_core.rollouts.sampling import sample_step

SEEDS = np.random.default_rng(0).integers(0, 2**64, size=20_000, dtype=np.uint64)


def settings(temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> SamplingSettings:
    return SamplingSettings(max_new_tokens=1, temperature=temperature, top_p=top_p, top_k=top_k, stop_ids=())


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic; its mean is the number of cells less one."""
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


# -- noise ------------------------------------------------------------------------------------------------------------


def test_noise_lies_in_the_unit_interval() -> None:
    edges = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    for step in (0, 1, 100_000):
        for seeds in (SEEDS, edges):
            numbers = uniform(seeds, step)
            assert numbers.dtype == np.float64
            assert numbers.min() >= 0.0
            assert numbers.max() < 1.0


def test_noise_is_splitmix64() -> None:
    # the first outputs of the published generator seeded with 0 and with 1, their upper 53 bits
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    for step, output in enumerate(first):
        assert uniform(np.array([0], np.uint64), step)[0] == (output >> 11) / 2**53
    assert uniform(np.array([1], np.uint64), 0)[0] == (0x910A2DEC89025CC1 >> 11) / 2**53


@pytest.mark.parametrize("of", ["seeds", "neighbouring seeds", "steps"])
def test_noise_is_uniform(of: str) -> None:
    numbers = {
        "seeds": lambda: uniform(SEEDS, 3),
        "neighbouring seeds": lambda: uniform(np.arange(20_000, dtype=np.uint64), 0),
        "steps": lambda: np.array([uniform(SEEDS[:1], step)[0] for step in range(20_000)]),
    }[of]()
    counts = np.bincount((numbers * 100).astype(int), minlength=100)
    assert chi_square(counts, np.full(100, 0.01)) < 148.3  # 99.9 % with 99 degrees of freedom


def test_noise_of_seeds_and_steps_is_uncorrelated() -> None:
    streams = np.array([uniform(np.arange(200, dtype=np.uint64), step) for step in range(500)])
    correlation = np.corrcoef(streams.T) - np.eye(200)
    assert abs(correlation).max() < 0.25  # 1 / sqrt(500) is 0.045; 19,900 pairs stay under 5.5 of it
    following = np.corrcoef(streams[:-1].ravel(), streams[1:].ravel())[0, 1]
    assert abs(following) < 0.02


def test_noise_belongs_to_the_seed_and_not_to_its_batch() -> None:
    alone = np.array([uniform(SEEDS[row : row + 1], 5)[0] for row in range(50)])
    assert np.array_equal(uniform(SEEDS[:50], 5), alone)
    assert np.array_equal(uniform(SEEDS[:50][::-1], 5), alone[::-1])
    before = SEEDS.copy()
    uniform(SEEDS, 1)
    assert np.array_equal(SEEDS, before)


# -- one token --------------------------------------------------------------------------------------------------------

LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5, -math.inf, 1.0])


def expected(temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The distribution, written out by hand: temperature, then the k likeliest, then the smallest set of mass p."""
    weights = np.exp(LOGITS.double().numpy() / temperature)
    probabilities = weights / weights.sum()
    order: Sequence[int] = np.argsort(-probabilities, kind="stable")
    kept = list(order[:top_k] if top_k else order)
    mass = probabilities[kept].sum()
    nucleus, inside = [], 0.0
    for token in kept:
        if inside >= top_p * mass:
            break
        nucleus.append(token)
        inside += probabilities[token]
    cut = np.zeros_like(probabilities)
    cut[nucleus] = probabilities[nucleus]
    return cut / cut.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "choices"),
    [
        (1.0, 0, 1.0, 6),
        (0.5, 0, 1.0, 6),
        (2.0, 0, 1.0, 6),
        (1.0, 3, 1.0, 3),
        (1.0, 99, 1.0, 6),
        (1.0, 0, 0.8, 3),
        (1.0, 0, 0.3, 1),
        (1.0, 4, 0.85, 3),
        (1.5, 4, 0.9, 4),
    ],
)
def test_tokens_come_with_their_exact_probabilities(temperature: float, top_k: int, top_p: float, choices: int) -> None:
    noise = torch.from_numpy(uniform(SEEDS, 0))
    tokens, logprobs = sample_step(LOGITS.expand(len(SEEDS), -1), noise, settings(temperature, top_p, top_k))
    counts = np.bincount(tokens.numpy(), minlength=len(LOGITS))
    wanted = expected(temperature, top_k, top_p)
    assert (wanted > 0).sum() == choices
    assert counts[wanted == 0].sum() == 0
    possible = wanted > 0
    limit = {1: 1e-9, 3: 13.8, 4: 16.3, 6: 20.5}[choices]  # 99.9 % of chi-square with one degree less
    assert chi_square(counts[possible], wanted[possible]) < limit
    # log-probabilities are those before anything is cut off
    uncut = torch.log_softmax(LOGITS / temperature, dim=-1)
    torch.testing.assert_close(logprobs, uncut[tokens])
    assert tokens.dtype == torch.int64
    assert logprobs.dtype == torch.float32


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0 - 2**-53, 1.0])  # rounding could reach the end itself
@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_p": 0.7}])
def test_a_token_without_probability_is_never_drawn(noise: float, cut: dict[str, float]) -> None:
    rows = torch.full((4, 6), -math.inf)
    rows[0, 2] = 0.0  # one token alone
    rows[1, :2] = 0.0  # the end has none
    rows[2, 4:] = 0.0  # the beginning has none
    rows[3] = torch.tensor([-math.inf, 0.0, -math.inf, 3.0, -math.inf, -math.inf])
    tokens, logprobs = sample_step(rows, torch.full((4,), noise, dtype=torch.float64), settings(**cut))
    assert torch.isfinite(rows.gather(-1, tokens[:, None])).all()
    assert torch.isfinite(logprobs).all()


def test_noise_is_turned_into_tokens_in_their_order() -> None:
    logits = torch.tensor([0.25, 0.5, 0.25]).log().expand(4, -1)
    noise = torch.tensor([0.0, 0.2499, 0.2501, 0.7501], dtype=torch.float64)
    tokens, logprobs = sample_step(logits, noise, settings())
    assert tokens.tolist() == [0, 0, 1, 2]
    assert logprobs.tolist() == pytest.approx([math.log(0.25), math.log(0.25), math.log(0.5), math.log(0.25)])


def test_rows_are_drawn_apart() -> None:
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(0)) * 3
    noise = torch.from_numpy(uniform(SEEDS[:64], 0))
    together, _ = sample_step(logits, noise, settings(0.7, 0.9, 10))
    alone = [sample_step(logits[row : row + 1], noise[row : row + 1], settings(0.7, 0.9, 10))[0] for row in range(64)]
    assert torch.equal(together, torch.cat(alone))


def test_half_precision_logits_are_sampled_in_full_precision() -> None:
    logits = torch.randn(32, 200, generator=torch.Generator().manual_seed(1)).bfloat16()
    noise = torch.from_numpy(uniform(SEEDS[:32], 0))
    tokens, logprobs = sample_step(logits, noise, settings())
    same, exact = sample_step(logits.float(), noise, settings())
    assert torch.equal(tokens, same)
    assert torch.equal(logprobs, exact)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_p": 0.7}])
def test_logits_that_are_no_distribution_are_refused(value: float, cut: dict[str, float]) -> None:
    logits = torch.zeros(2, 4)
    logits[1, 2] = value
    with pytest.raises(PolicyError, match="logits are not finite"):
        sample_step(logits, torch.zeros(2, dtype=torch.float64), settings(**cut))
    with pytest.raises(PolicyError, match="logits are not finite"):
        sample_step(torch.full((1, 4), -math.inf), torch.zeros(1, dtype=torch.float64), settings(**cut))
