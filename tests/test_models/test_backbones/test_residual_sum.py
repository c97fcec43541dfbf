import torch
from torch import nn

from mmrkd.models.backbones import ResidualSum


def test_it_adds_what_its_maps_give():
    add = ResidualSum(nn.Conv2d(2, 3, 1), nn.Conv2d(4, 3, 1))
    student, assistant = torch.randn(1, 2, 5, 5), torch.randn(1, 4, 5, 5)
    expected = torch.einsum('oi,nihw->nohw', add.student.weight[..., 0, 0], student)
    expected += torch.einsum('oi,nihw->nohw', add.assistant.weight[..., 0, 0], assistant)
    expected += (add.student.bias + add.assistant.bias).view(1, -1, 1, 1)
    assert torch.allclose(add(student, assistant), expected, atol=1e-6)


def test_without_maps_and_without_an_assistant():
    student, assistant = torch.randn(2, 3), torch.randn(2, 3)
    add = ResidualSum()
    assert torch.equal(add(student, assistant), student + assistant)
    assert torch.equal(add(student), student)
    assert list(add.parameters()) == []
