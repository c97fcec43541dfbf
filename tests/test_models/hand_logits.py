"""Logits of three samples and four classes, for which values were worked out with independent formulas."""

import torch

Z_S = [[1.0, 0.5, -0.5, 0.0], [0.2, -0.3, 0.8, 0.1], [0.0, 0.4, -0.2, 0.9]]
Z_T = [[2.0, 0.5, -1.0, 0.3], [0.1, 1.2, 0.4, -0.6], [-0.5, 0.8, 0.2, 1.5]]
LABELS = torch.tensor([0, 2, 3])


def hand_logits(dtype=torch.float64):
    """Returns student and teacher, both able to receive a gradient."""
    return tuple(torch.tensor(z, dtype=dtype, requires_grad=True) for z in (Z_S, Z_T))


def sure_logits():
    """Logits whose probabilities underflow in float32, the student's and the teacher's first choices apart."""
    z_s = torch.tensor([[200.0, 0.0, -200.0, 50.0], [0.0, 300.0, 0.0, 0.0]], requires_grad=True)
    return z_s, torch.tensor([[0.0, 200.0, -100.0, 0.0], [400.0, 0.0, -50.0, 0.0]])
