import pytest
import torch
from torch.nn import functional

from medsynth.skin.packed import packed, product
from tests.torch_threads import torch_threads


@pytest.mark.parametrize("rows", [(1,), (7,), (3, 4, 5), (300,)])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (48, 128), (512, 260)])
def test_a_packed_matrix_gives_what_linear_gives(shape: tuple[int, int], rows: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    matrix, bias, x = torch.randn(shape) / shape[1] ** 0.5, torch.randn(shape[0]), torch.randn(*rows, shape[1])
    with torch.no_grad():
        made = packed(matrix)
        for added in (None, bias):
            torch.testing.assert_close(product(x, made, added), functional.linear(x, matrix, added))
            assert torch.equal(product(x, matrix, added), functional.linear(x, matrix, added))


def test_rows_do_not_hang_on_each_other() -> None:
    torch.manual_seed(3)
    x, other = torch.randn(2, 40, 96)
    other[7] = x[7]
    with torch.no_grad(), torch_threads(1):
        made = packed(torch.randn(64, 96))
        assert torch.equal(product(x, made)[7], product(other, made)[7])


def test_what_learns_and_what_is_exact_stays_as_it_is() -> None:
    matrix = torch.randn(4, 3, requires_grad=True)
    assert packed(matrix) is matrix
    with torch.no_grad():
        exact = matrix.double()
        assert packed(exact) is exact
        strided = packed(matrix.t())
    assert strided.layout is not torch.strided, "in any order of its own"
    product(torch.randn(2, 3), packed(matrix)).sum().backward()
    assert matrix.grad is not None
