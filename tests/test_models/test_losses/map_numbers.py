"""Tensors of the hand numbers: logits (N 3, K 4) and maps (N 2, C 2, H 1, W 3) of a student and a teacher."""

import torch

Z_S = torch.tensor([[1, 0.5, -0.5, 0], [0.2, -0.3, 0.8, 0.1], [0, 0.4, -0.2, 0.9]])
Z_T = torch.tensor([[2, 0.5, -1, 0.3], [0.1, 1.2, 0.4, -0.6], [-0.5, 0.8, 0.2, 1.5]])
F_S = torch.tensor([[[[0.0, 1, 2]], [[1, -1, 0.5]]], [[[0.5, 0.5, -0.5]], [[2, 0, 1]]]])
F_T = torch.tensor([[[[1.0, 1, 3]], [[0, -1, 1]]], [[[0, 1, -1]], [[1, 0.5, 0.5]]]])


def gradients(loss, student, teacher):
    """Gradient of a loss on its two arguments; ``None`` where there is none."""
    student, teacher = (x.clone().requires_grad_() for x in (student, teacher))
    return torch.autograd.grad(loss(student, teacher), (student, teacher), allow_unused=True)


def agrees_in_double(loss, *tensors):
    """Whether float64 arguments stay float64 and give what float32 gives, and half precision is computed in float32."""
    single, double = loss(*tensors), loss(*(x.double() for x in tensors))
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert loss(*(x.bfloat16() for x in tensors)).dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)
    return True
