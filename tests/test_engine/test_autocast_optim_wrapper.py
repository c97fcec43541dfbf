import platform
from copy import deepcopy

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mmrkd.engine import AutocastOptimWrapper
from mmrkd.engine.optim import computes_bfloat16
from mmrkd.engine.optim.native_precision import _cpu_flags
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

PRECISION = 'mmrkd.engine.optim.native_precision'


def wrapper_of(model, lr=0.5, dtype='bfloat16', **kwargs):
    return AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr), dtype=dtype, **kwargs)


class TestAlone:
    def test_the_forward_pass_is_in_bfloat16_and_the_weights_are_not(self):
        model = nn.Linear(3, 2)
        wrapper = wrapper_of(model)
        with wrapper.optim_context(model):
            assert model(torch.rand(1, 3)).dtype == torch.bfloat16
        assert model(torch.rand(1, 3)).dtype == torch.float32
        assert model.weight.dtype == torch.float32

    def test_autocast_ends_with_an_error(self):
        model = nn.Linear(3, 2)
        with pytest.raises(RuntimeError):
            with wrapper_of(model).optim_context(model):
                model(torch.rand(1, 5))
        assert model(torch.rand(1, 3)).dtype == torch.float32

    def test_a_step_by_hand(self):
        model = nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(1.0)
        wrapper = wrapper_of(model, lr=0.5)
        with wrapper.optim_context(model):
            loss = model(torch.full((1, 1), 2.0)).float().square().sum()  # (2 w)^2, derivative 8 w
        wrapper.update_params(loss)
        assert model.weight.item() == 1.0 - 0.5 * 8
        assert wrapper.optimizer.param_groups[0]['params'][0].dtype == torch.float32

    def test_gradients_are_accumulated_as_in_the_plain_wrapper(self):
        model = nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(1.0)
        wrapper = wrapper_of(model, lr=0.5, accumulative_counts=2)
        wrapper.initialize_count_status(model, 0, 2)
        for expected in (1.0, -3.0):
            with wrapper.optim_context(model):
                loss = model(torch.full((1, 1), 2.0)).float().square().sum()
            wrapper.update_params(loss)
            assert model.weight.item() == expected

    def test_other_types_are_refused(self):
        with pytest.raises(ValueError, match="one of .'auto', 'bfloat16', 'float16'., but got 'float64'"):
            wrapper_of(nn.Linear(1, 1), dtype='float64')

    def test_float16_can_be_asked_for(self):
        assert wrapper_of(nn.Linear(1, 1), dtype='float16').cast_dtype == torch.float16

    def test_it_is_registered(self):
        model = nn.Linear(1, 1)
        cfg = dict(type='mmrkd.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1.0))
        assert type(build_optim_wrapper(model, cfg)) is AutocastOptimWrapper

    def test_the_machine_decides_by_default(self, monkeypatch, capsys):
        model = nn.Linear(3, 2)
        for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
            monkeypatch.setattr(f'{PRECISION}._asked_of_torch', lambda native=native: native)
            wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 0.1))
            for _ in range(2):
                with wrapper.optim_context(model):
                    assert model(torch.rand(1, 3)).dtype == dtype
        said = capsys.readouterr().out
        assert said.count('precision: bfloat16 (this processor computes bfloat16, says torch') == 1
        assert said.count('precision: float32 (this processor has no instructions for bfloat16, says torch') == 1

    def test_in_float32_it_is_the_plain_wrapper_bit_for_bit(self, monkeypatch):
        monkeypatch.setattr(f'{PRECISION}._asked_of_torch', lambda: False)
        weights = []
        for kind in (AutocastOptimWrapper, OptimWrapper):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
            wrapper = kind(optimizer=torch.optim.SGD(model.parameters(), 0.1), clip_grad=dict(max_norm=0.5))
            for _ in range(3):
                with wrapper.optim_context(model):
                    loss = model(torch.rand(4, 8)).square().sum()
                wrapper.update_params(loss)
            weights.append([p.detach().clone() for p in model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*weights))


class TestNativePrecision:
    CPU = torch.device('cpu')

    @pytest.mark.parametrize(
        'flags, expected',
        [
            ('flags : fpu avx avx2', False),
            ('flags : avx512f avx512vl avx512bw', False),
            ('flags : avx2 avx512f avx512_bf16', True),
            ('flags : avx512f amx_bf16 amx_tile', True),
            ('Features : fp asimd bf16', True),
            ('', False),
        ],
    )
    def test_flags_where_torch_cannot_be_asked(self, flags, expected, monkeypatch, tmp_path):
        monkeypatch.setattr(f'{PRECISION}._asked_of_torch', lambda: None)
        (tmp_path / 'cpuinfo').write_text(f'processor : 0\n{flags}\nbugs : avx512_bf16\n')
        found, reason = computes_bfloat16(self.CPU, str(tmp_path / 'cpuinfo'))
        assert found is expected and str(tmp_path) in reason
        assert computes_bfloat16(self.CPU, str(tmp_path / 'none'))[0] is False

    @pytest.mark.parametrize('avx, amx', [(False, False), (True, False), (False, True)])
    def test_torch_is_asked_where_it_answers(self, avx, amx, monkeypatch):
        monkeypatch.setattr('platform.machine', lambda: 'x86_64')
        monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: avx, raising=False)
        monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: amx, raising=False)
        found, reason = computes_bfloat16(self.CPU)
        assert found is (avx or amx) and torch.__version__ in reason

    @pytest.mark.parametrize('capability, expected', [((7, 5), False), ((8, 0), True), ((9, 0), True)])
    def test_gpus(self, capability, expected, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda *_: 'Some GPU')
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *_: capability)
        found, reason = computes_bfloat16(torch.device('cuda'))
        assert found is expected and 'Some GPU' in reason

    def test_other_devices_stay_in_float32(self):
        assert computes_bfloat16(torch.device('meta'))[0] is False

    def test_this_machine_agrees_with_its_flags(self):
        native, _ = computes_bfloat16(self.CPU)
        if platform.system() == 'Linux':
            assert native is _cpu_flags('/proc/cpuinfo')


@pytest.mark.parametrize(
    'student, teacher, batch',
    [
        (tiny_retinanet(), tiny_retinanet(12, 24), detection_batch),
        (tiny_classifier(), tiny_classifier(12), classification_batch),
    ],
    ids=['retinanet', 'classifier'],
)
class TestDistillation:
    @pytest.fixture
    def distiller(self, student, teacher, tmp_path):
        era = dict(type='mmrkd.ERA', num_branches=4, w_kd=1.0, twi_on='all', twi_kd=True)
        methods = [era, dict(type='mmrkd.FitNets')]
        return build_distiller(student, save_random_teacher(teacher, tmp_path), methods).train()

    def test_features_are_bfloat16_and_losses_float32(self, distiller, batch):
        seen = {}
        for name, model in (('student', distiller.student), ('teacher', distiller.teacher.model)):
            model.backbone.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out[-1].dtype}))
        inputs, samples = model_inputs(distiller, batch())
        with wrapper_of(distiller).optim_context(distiller):
            losses = distiller(inputs, samples, mode='loss')
        assert seen == dict(student=torch.bfloat16, teacher=torch.bfloat16)
        found = {name: value for name, value in losses.items() if '.' in name}
        assert {'era.loss_kd', 'era.loss_feat', 'era.loss_res_4', 'era.loss_twi_0', 'fitnets.loss_feat'} <= set(found)
        for name, value in found.items():
            assert value.dtype == torch.float32, name
            assert torch.isfinite(value), name

    def test_losses_are_close_to_those_in_full_precision(self, distiller, batch):
        inputs, samples = model_inputs(distiller, batch())
        other = deepcopy(distiller)
        expected = other(inputs, deepcopy(samples), mode='loss')
        with wrapper_of(distiller).optim_context(distiller):
            losses = distiller(inputs, deepcopy(samples), mode='loss')
        assert list(losses) == list(expected)
        for name, value in expected.items():
            if '.' in name and name != 'era.loss_kd':  # almost 0 at the start: two fresh heads answer about the same
                assert losses[name].item() == pytest.approx(value.item(), rel=0.01), name
        totals = [distiller.parse_losses(found)[0].item() for found in (losses, expected)]
        assert totals[0] == pytest.approx(totals[1], rel=0.01)

    def test_it_trains(self, distiller, batch):
        wrapper = wrapper_of(distiller, lr=1e-3)
        before = {name: p.detach().clone() for name, p in distiller.named_parameters()}
        fingerprint = distiller.teacher.fingerprint()
        distiller.train_step(batch(), wrapper)
        for name, parameter in distiller.named_parameters():
            assert parameter.dtype == torch.float32 and torch.isfinite(parameter).all(), name
        changed = [name for name, p in distiller.named_parameters() if not torch.equal(p, before[name])]
        assert any(name.startswith('backbone.') for name in changed)
        assert any(name.startswith('methods.') for name in changed)
        assert distiller.teacher.fingerprint() == fingerprint

    def test_clipping_counts_the_gradients_of_student_and_methods_together(self, distiller, batch):
        """One step with SGD and a rate of 1 moves all weights together by the maximal norm."""
        wrapper = wrapper_of(distiller, lr=1.0, clip_grad=dict(max_norm=0.01))
        before = {name: p.detach().clone() for name, p in distiller.named_parameters()}
        distiller.train_step(batch(), wrapper)
        moved = torch.stack([(p - before[name]).square().sum() for name, p in distiller.named_parameters()])
        assert moved.sum().sqrt().item() == pytest.approx(0.01, rel=1e-2)

    def test_two_accumulated_halves_are_one_step(self, distiller, batch):
        """The same batch twice, each with half the loss, gives the step of the batch."""
        for module in distiller.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0
        other = deepcopy(distiller)
        distiller.train_step(batch(), wrapper_of(distiller, lr=0.1))
        wrapper = wrapper_of(other, lr=0.1, accumulative_counts=2)
        wrapper.initialize_count_status(other, 0, 2)
        start = deepcopy(other.state_dict())
        other.train_step(batch(), wrapper)
        assert all(torch.equal(p, start[name]) for name, p in other.state_dict().items() if name.endswith('.weight'))
        other.train_step(batch(), wrapper)
        expected = dict(distiller.named_parameters())
        for name, parameter in other.named_parameters():
            torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=1e-4, msg=name)
