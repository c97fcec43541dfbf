import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmrkd.models import DistillMethod
from mmrkd.models.loss_guard import LossGuard
from mmrkd.testing import build_distiller, detection_batch, model_inputs, tiny_retinanet


class Sample:
    def __init__(self, **names):
        self.__dict__.update(names)


SAMPLES = [Sample(img_path='a.jpg', img_id=1), Sample(img_id=7), Sample()]


@pytest.fixture
def parameter():
    return nn.Parameter(torch.tensor([2.0, 3.0]))


class TestAlone:
    def test_finite_losses_pass_as_they_are(self, parameter):
        losses = dict(loss_cls=torch.ones(()), loss_list=[torch.zeros(()), torch.ones(2)], acc=torch.tensor(torch.nan))
        assert LossGuard()(losses, SAMPLES, [parameter]) is losses

    @pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
    def test_the_message_names_the_terms_the_iteration_and_the_images(self, parameter, value):
        MessageHub.get_instance('run').update_info('iter', 41)
        bad = torch.tensor(value)
        losses = {'loss_cls': torch.ones(()), 'era.loss_res_2': bad, 'loss_list': [torch.ones(()), bad]}
        with pytest.raises(ValueError) as error:
            LossGuard()(losses, SAMPLES, [parameter])
        assert 'not finite at iteration 41: era.loss_res_2, loss_list. ' in str(error.value)
        assert "The images: ['a.jpg', 7, 'unnamed']" in str(error.value)

    def test_a_skipped_step_gives_gradients_of_zero(self, parameter, capsys):
        frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        losses = LossGuard('skip')(dict(loss=parameter.sum() / 0), SAMPLES, [parameter, frozen])
        assert list(losses) == ['loss_skipped'] and losses['loss_skipped'].item() == 0
        losses['loss_skipped'].backward()
        assert parameter.grad.tolist() == [0, 0] and frozen.grad is None
        assert 'not finite: loss. ' in capsys.readouterr().out

    def test_many_in_a_row_stop_and_one_that_is_finite_starts_the_count_again(self, parameter):
        guard = LossGuard('skip', most_in_a_row=2)
        good, bad = dict(loss=torch.ones(())), dict(loss=torch.tensor(torch.nan))
        for losses in (bad, bad, good, bad, bad):
            guard(losses, SAMPLES, [parameter])
        with pytest.raises(ValueError, match='not finite'):
            guard(bad, SAMPLES, [parameter])

    def test_other_options_are_refused(self):
        with pytest.raises(ValueError, match="on_nonfinite must be 'stop', 'skip' or 'ignore', found 'warn'"):
            LossGuard('warn')


class Overflowing(DistillMethod):
    def losses(self, student, teacher, samples):
        return dict(loss_far=(student.feats[0] * 1e38).square().sum())


class TestInTheDistiller:
    @pytest.fixture
    def distiller(self, wide_retinanet):
        def distiller(**options):
            return build_distiller(tiny_retinanet(), dict(wide_retinanet), [Overflowing()], **options).train()

        return distiller

    def test_the_method_is_named(self, distiller):
        model = distiller()
        with pytest.raises(ValueError, match=r'not finite.*: overflowing.loss_far. The images: \[0, 1\]'):
            model(*model_inputs(model, detection_batch()), mode='loss')

    def test_a_step_that_is_skipped_changes_no_weight(self, distiller):
        from mmengine.optim import OptimWrapper

        model = distiller(on_nonfinite='skip')
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        logs = model.train_step(detection_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0)))
        assert logs['loss'].item() == 0
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]), name
