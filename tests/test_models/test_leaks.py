"""No hook, no graph and no feature outlives its step."""

import gc
import resource
import weakref

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmrkd.models import DistillMethod
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

METHODS = [dict(type='mmrkd.ERA', twi_on='all'), dict(type='mmrkd.FitNets')]


class Watching(DistillMethod):
    """Notes what it is given, without holding it."""

    student_taps, teacher_taps = ('backbone.layer1',), ('backbone.layer2',)

    def __init__(self):
        super().__init__()
        self.seen = []

    def losses(self, student, teacher, samples):
        tensors = [*student.feats, *teacher.feats, student.inputs, *student.taps.values(), *teacher.taps.values()]
        tensors += [t for out in (student.outputs, teacher.outputs) for level in out for t in level]
        loss = student.feats[0].square().mean()
        self.seen += [weakref.ref(t) for t in [*tensors, loss]] + [weakref.ref(view) for view in (student, teacher)]
        return dict(loss_watched=loss)


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


class TestOneStep:
    @pytest.fixture
    def distiller(self, wide_retinanet):
        return build_distiller(tiny_retinanet(), dict(wide_retinanet), [*METHODS, Watching()]).train()

    def test_nothing_of_it_is_left(self, distiller):
        """With the cyclic collector off: what would wait for it holds a GPU's memory until then."""
        wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.001))
        hooks = hooks_of(distiller), hooks_of(distiller.teacher.model)
        watching = distiller.methods[-1]
        gc.collect()
        gc.disable()
        try:
            for seed in range(2):
                distiller.train_step(detection_batch(seed=seed), wrapper)
                left = [type(ref()).__name__ for ref in watching.seen if ref() is not None]
                assert watching.seen and left == []
                watching.seen.clear()
        finally:
            gc.enable()
        assert (hooks_of(distiller), hooks_of(distiller.teacher.model)) == hooks
        for model in (distiller.student, distiller.teacher.model):
            assert 'extract_feat' not in vars(model)

    def test_nor_after_an_error(self, distiller):
        hooks = hooks_of(distiller), hooks_of(distiller.teacher.model)
        wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.001))
        distiller.methods[1].w_feat = torch.nan
        with pytest.raises(ValueError, match='fitnets.loss_feat'):
            distiller.train_step(detection_batch(), wrapper)
        assert (hooks_of(distiller), hooks_of(distiller.teacher.model)) == hooks
        for model in (distiller.student, distiller.teacher.model):
            assert 'extract_feat' not in vars(model)

    def test_the_teacher_keeps_no_gradient(self, distiller):
        wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.001))
        distiller.train_step(detection_batch(), wrapper)
        assert all(p.grad is None for p in distiller.teacher.model.parameters())


def one_stage(width):
    """The first of four stages of the tiny classifier."""
    cfg = tiny_classifier(width)
    cfg['backbone'].update(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    cfg['head']['in_channels'] = width
    return cfg


@pytest.mark.slow
def test_a_thousand_iterations_do_not_grow_memory(tmp_path):
    teacher = save_random_teacher(one_stage(12), tmp_path)
    distiller = build_distiller(one_stage(8), teacher, METHODS).train()
    wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=1e-4))
    batch = classification_batch(2, size=8)

    def train(iterations):
        for _ in range(iterations):
            distiller.train_step(batch, wrapper)
        gc.collect()
        tensors = sum(isinstance(item, torch.Tensor) for item in gc.get_objects())
        return tensors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    (tensors, peak), (tensors_after, peak_after) = train(100), train(1000)
    assert tensors_after == tensors
    assert peak_after < peak + 8, f'{peak:.0f} MiB after 100 iterations, {peak_after:.0f} MiB after 1,100'
