from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmrkd.engine import CompileHook
from mmrkd.models import DistillMethod
from mmrkd.testing import build_distiller, classification_batch, tiny_classifier


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class TestCompileHook:
    def test_the_steps_and_the_names_are_those_without(self, teachers):
        model = build_distiller(tiny_classifier(), deepcopy(teachers['classifier']), [dict(type='mmrkd.ERA')]).train()
        plain, calls = deepcopy(model), []

        def backend(graph, _inputs):
            calls.append(1)
            return graph.forward

        CompileHook(backend=backend).before_train(SimpleNamespace(model=model))
        ends = []
        for distiller in (model, plain):
            wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.01))
            for seed in range(2):
                distiller.train_step(classification_batch(seed=seed), wrapper)
            ends.append(distiller.state_dict())
        assert len(calls) >= 2  # of student and teacher
        assert list(ends[0]) == list(ends[1])
        for name, value in ends[1].items():
            torch.testing.assert_close(ends[0][name], value, msg=name)

    def test_methods_that_look_inside_are_refused(self):
        class Tapping(DistillMethod):
            student_taps = ('backbone.layer1',)

            def losses(self, student, teacher, samples):
                return {}

        with pytest.raises(ValueError, match=r"cannot be used with \['Tapping'\]"):
            CompileHook().before_train(SimpleNamespace(model=SimpleNamespace(methods=dict(tapping=Tapping()))))
