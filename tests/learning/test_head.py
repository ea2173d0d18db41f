"""The LM head by chunks: the plain head's numbers and gradient, in memory that does not grow with the vocabulary."""

import weakref

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reval_core.learning import head
from reval_core.learning.head import label_logits


def _inputs(n: int = 37, width: int = 8, vocabulary: int = 53, dtype: torch.dtype = torch.float64, bias: bool = False):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    rows, weight = normal(n, width), normal(vocabulary, width)
    return rows, weight, normal(vocabulary) if bias else None, torch.randint(vocabulary, (n,), generator=generator)


def _plain(rows: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float):
    logits = rows @ weight.T / temperature if bias is None else (rows @ weight.T + bias) / temperature
    return logits[torch.arange(len(labels)), labels], logits.logsumexp(1)


def _gradients(found: tuple[Tensor, Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Of a function in which each row's two numbers have an upstream gradient of their own."""
    label, value = found
    to_label = torch.linspace(-2, 3, len(label), dtype=label.dtype)
    to_value = torch.linspace(1, -4, len(value), dtype=value.dtype).square()
    return list(torch.autograd.grad((to_label * label + to_value * value).sum(), inputs))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rows_at_once", [1, 4, 36, 37])
def test_chunks_give_the_plain_heads_values_and_gradient(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int, dtype: torch.dtype, limit: float, bias: bool, temperature: float
) -> None:
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 53 * rows_at_once)
    *learned, labels = _inputs(dtype=dtype, bias=bias)
    found, expected = (f(*learned, labels, temperature) for f in (label_logits, _plain))
    inputs = [values for values in learned if values is not None]
    for one, other in [
        *zip(found, expected, strict=True),
        *zip(_gradients(found, inputs), _gradients(expected, inputs), strict=True),
    ]:
        assert one.dtype == dtype
        assert (one - other).norm() / other.norm() <= limit


def test_half_precision_factors_are_multiplied_exactly_and_summed_in_float32() -> None:
    rows, weight, _, labels = _inputs(dtype=torch.bfloat16)
    label, value = label_logits(rows, weight, None, labels)
    exact_label, exact_value = _plain(rows.double(), weight.double(), None, labels, 1.0)
    assert label.dtype == value.dtype == torch.float32
    assert (label - exact_label).abs().max() < 1e-5
    assert (value - exact_value).abs().max() < 1e-5
    rounded = (rows @ weight.T).float().logsumexp(1)
    assert (rounded - exact_value).abs().max() > 1e-3
    for found, exact in zip(
        _gradients((label, value), [rows, weight]), _gradients((exact_label, exact_value), [rows, weight]), strict=True
    ):
        assert found.dtype == torch.bfloat16
        assert (found.double() - exact.double()).norm() / exact.double().norm() < 0.01


def test_an_upstream_gradient_may_be_one_expanded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 53 * 4)
    rows, weight, _, labels = _inputs()
    found, expected = (
        torch.autograd.grad(label.sum() + value.sum(), (rows, weight))
        for label, value in (f(rows, weight, None, labels, 1.0) for f in (label_logits, _plain))
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_what_needs_no_gradient_gets_none() -> None:
    rows, weight, _, labels = _inputs()
    head_only, _ = label_logits(rows.detach(), weight, None, labels)
    assert torch.autograd.grad(head_only.sum(), weight)[0].norm() > 0
    body_only, _ = label_logits(rows, weight.detach(), None, labels)
    assert torch.autograd.grad(body_only.sum(), rows)[0].norm() > 0


class _Memory(TorchDispatchMode):
    """Bytes of all tensors that live at once, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def _freed(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(result):
            if isinstance(value, Tensor) and (storage := value.untyped_storage()) not in self._known:
                self._known[storage] = True
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return result


def _peak(n: int, vocabulary: int) -> int:
    """Bytes at most in a forward and backward pass, beside the weight's own gradient, which autograd copies."""
    rows, weight, _, labels = _inputs(n, 4, vocabulary, torch.float32)
    with _Memory() as memory:
        label, value = label_logits(rows, weight, None, labels)
        (label.sum() + value.square().sum()).backward()
    return memory.peak - 2 * weight.nbytes


def test_memory_is_flat_in_vocabulary_and_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 2**14)
    base = _peak(256, 2**10)
    assert base < 6 * 4 * 2**14  # a few chunks of float32, where all logits are 16
    for vocabulary in (2**11, 2**12, 2**13):
        assert _peak(256, vocabulary) <= 1.05 * base
    assert _peak(1024, 2**10) <= 1.05 * base + 768 * 64  # rows, labels and a few numbers each
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 2**40)
    assert _peak(256, 2**13) > 10 * base  # as the plain head is not


@pytest.mark.parametrize("n", [1, 37, 8064, 2**17])
def test_slices_are_aligned_and_cover_the_vocabulary_once(n: int) -> None:
    rows, weight = torch.empty(n, 0), torch.empty(151_936, 0)
    slices = list(head._slices(rows, weight))
    assert [part.start for part in slices] == [0, *(part.stop for part in slices[:-1])]
    assert slices[-1].stop == len(weight)
    assert all(part.start % 256 == 0 for part in slices)
    assert max(part.stop - part.start for part in slices) * n <= head.LOGITS_PER_CHUNK
