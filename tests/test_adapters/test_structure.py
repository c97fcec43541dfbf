import pytest
import torch

from mmrkd.adapters.structure import tensors_in, with_tensors

A, B, C = (torch.full((1,), float(i)) for i in range(3))


@pytest.mark.parametrize(
    'feats, tensors',
    [
        (A, [A]),
        ((A, B), [A, B]),
        ([A, None, (B, C)], [A, B, C]),
        ({'p3': A, 'aux': {'p4': (B,)}}, [A, B]),
        (None, []),
        ((), []),
    ],
)
def test_there_and_back(feats, tensors):
    found = list(tensors_in(feats))
    assert len(found) == len(tensors) and all(a is b for a, b in zip(found, tensors))
    rebuilt = with_tensors(feats, iter([t + 10 for t in tensors]))
    assert type(rebuilt) is type(feats)
    assert [t.item() for t in tensors_in(rebuilt)] == [t.item() + 10 for t in tensors]


def test_the_structure_is_kept():
    rebuilt = with_tensors([A, None, {'p3': (B,)}], iter([C, A]))
    assert rebuilt[0] is C and rebuilt[1] is None and rebuilt[2]['p3'][0] is A
    assert isinstance(rebuilt, list) and isinstance(rebuilt[2]['p3'], tuple)
