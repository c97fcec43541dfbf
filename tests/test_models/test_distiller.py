from copy import deepcopy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmrkd.models import Distiller, DistillMethod, FrozenTeacher
from mmrkd.registry import MODELS
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_retinanet,
)

FAMILIES = {
    'retinanet': (tiny_retinanet, detection_batch),
    'faster rcnn': (tiny_faster_rcnn, detection_batch),
    'classifier': (tiny_classifier, classification_batch),
}
ERA, FITNETS = dict(type='mmrkd.ERA', num_branches=4), dict(type='mmrkd.FitNets')
ERA_OFF = dict(type='mmrkd.ERA', w_kd=0, w_feat=0, w_res=0, w_twi=0)
FITNETS_OFF = dict(type='mmrkd.FitNets', w_feat=0)


class Weighted(DistillMethod):
    """Changes only the weight of the task losses."""

    def __init__(self, task_weight):
        super().__init__()
        self.task_weight = task_weight

    def losses(self, student, teacher, samples):
        return {'loss_zero': student.feats[0].sum() * 0, 'gap': student.feats[0].sum().detach()}


@pytest.fixture(scope='module', params=list(FAMILIES))
def saved_family(request, tmp_path_factory):
    cfg, batch = FAMILIES[request.param]
    return cfg(), save_random_teacher(cfg(12), tmp_path_factory.mktemp('teacher'), seed=5), batch


@pytest.fixture
def family(saved_family):
    """Student config, teacher argument and a function that makes batches."""
    student, teacher, batch = saved_family
    return deepcopy(student), deepcopy(teacher), batch


@pytest.fixture(scope='module')
def saved_teacher(tmp_path_factory):
    return save_random_teacher(tiny_retinanet(12, 24), tmp_path_factory.mktemp('teacher'), seed=5)


@pytest.fixture
def teacher(saved_teacher):
    return deepcopy(saved_teacher)


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def assert_equal_states(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def student_part(distiller):
    return {k: v for k, v in distiller.state_dict().items() if not k.startswith('methods.')}


class TestStateDict:
    @pytest.mark.parametrize('methods', [[], [ERA], [ERA, FITNETS]], ids=['none', 'era', 'era and fitnets'])
    def test_it_begins_with_the_keys_of_the_plain_student_in_their_order(self, family, methods):
        student, teacher, _ = family
        state, plain = build_distiller(student, teacher, methods).state_dict(), build_model(student).state_dict()
        assert list(state)[: len(plain)] == list(plain)
        rest = list(state)[len(plain) :]
        assert all(key.startswith('methods.') for key in rest)
        names = [method['type'].split('.')[1].lower() for method in methods]
        assert {key.split('.')[1] for key in rest} == set(names)

    def test_its_version_numbers_stand_under_the_plain_names(self, teacher):
        """Modules look their version up there while they load, and take a missing one for an old checkpoint."""
        state, plain = build_distiller(tiny_retinanet(), teacher, [ERA]).state_dict(), build_model(tiny_retinanet())
        plain = plain.state_dict()
        assert {k: state._metadata.get(k) for k in plain._metadata} == dict(plain._metadata)

    def test_the_plain_student_starts_from_the_same_weights(self, family):
        student, teacher, _ = family
        distiller = build_distiller(student, teacher, [ERA], seed=3)
        assert_equal_states(student_part(distiller), build_model(student, seed=3).state_dict())

    def test_the_plain_model_loads_the_student(self, family):
        student, teacher, _ = family
        distiller = build_distiller(student, teacher, [ERA], seed=3)
        plain = build_model(student, seed=4)
        plain.load_state_dict(student_part(distiller), strict=True)
        assert_equal_states(plain.state_dict(), distiller.student.state_dict())

    def test_it_loads_a_plain_state_dict(self, family):
        student, teacher, _ = family
        plain = build_model(student, seed=4)
        distiller = build_distiller(student, teacher, [], seed=3)
        distiller.load_state_dict(plain.state_dict(), strict=True)
        assert_equal_states(distiller.student.state_dict(), plain.state_dict())

    def test_what_a_plain_state_dict_lacks_are_the_methods(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA], seed=3)
        methods = {k: v.clone() for k, v in distiller.methods.state_dict().items()}
        plain = build_model(tiny_retinanet(), seed=4).state_dict()
        keys = list(plain)
        result = distiller.load_state_dict(plain, strict=False)
        assert result.unexpected_keys == []
        assert result.missing_keys == [f'methods.{k}' for k in methods]
        assert_equal_states(distiller.methods.state_dict(), methods)
        assert list(plain) == keys, 'the state dict of the caller was changed'

    def test_round_trip(self, family):
        student, teacher, _ = family
        source = build_distiller(student, teacher, [ERA, FITNETS], seed=3)
        target = build_distiller(student, teacher, [ERA, FITNETS], seed=4)
        assert any(not torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())
        target.load_state_dict(source.state_dict(), strict=True)
        assert_equal_states(target.state_dict(), source.state_dict())

    def test_a_copy_saves_and_loads_on_its_own(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA], seed=3)
        copied = deepcopy(distiller)
        weights = {k: torch.full_like(v, 2) for k, v in distiller.state_dict().items()}
        copied.load_state_dict(weights, strict=True)
        assert_equal_states(copied.state_dict(), weights)
        assert not torch.equal(distiller.student.backbone.conv1.weight, copied.student.backbone.conv1.weight)

    def test_inside_another_module_it_keeps_the_prefix(self, teacher):
        """That is how EMA and DDP hold it."""
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA], seed=3)
        holder = torch.nn.Module()
        holder.module = distiller
        assert list(holder.state_dict()) == [f'module.{k}' for k in distiller.state_dict()]
        weights = {k: torch.full_like(v, 2) for k, v in holder.state_dict().items()}
        holder.load_state_dict(weights, strict=True)
        assert_equal_states(holder.state_dict(), weights)

    def test_mmengine_saves_and_loads_it_alike(self, teacher, tmp_path):
        from mmengine.runner import get_state_dict, load_checkpoint

        distiller = build_distiller(tiny_retinanet(), teacher, [ERA], seed=3)
        assert_equal_states(get_state_dict(distiller), distiller.state_dict())
        torch.save(dict(state_dict=get_state_dict(distiller)), tmp_path / 'all.pth')
        target = build_distiller(tiny_retinanet(), teacher, [ERA], seed=4)
        load_checkpoint(target, str(tmp_path / 'all.pth'), strict=True)
        assert_equal_states(target.state_dict(), distiller.state_dict())


class TestTeacher:
    def test_nothing_of_it_belongs_to_the_distiller(self, family):
        student, teacher, _ = family
        distiller = build_distiller(student, teacher, [ERA, FITNETS])
        own = {id(m) for m in distiller.modules()}
        tensors = {t.data_ptr() for t in distiller.state_dict(keep_vars=True).values() if t.numel()}
        tensors |= {p.data_ptr() for p in distiller.parameters()} | {b.data_ptr() for b in distiller.buffers()}
        assert not own & {id(m) for m in distiller.teacher.model.modules()}
        assert not tensors & {t.data_ptr() for t in distiller.teacher.model.state_dict().values()}
        assert not any('teacher' in name for name, _ in distiller.named_parameters())

    def test_synchronised_norms_are_the_students_alone(self, family):
        """``sync_bn='torch'`` of a config; the statistics themselves are synchronised on GPUs only."""
        student, teacher, _ = family
        distiller = build_distiller(student, teacher, [ERA])
        names, before = list(distiller.state_dict()), distiller.teacher.fingerprint()
        distiller = convert_sync_batchnorm(distiller)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in distiller.student.modules())
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in distiller.teacher.model.modules())
        assert list(distiller.state_dict()) == names and distiller.teacher.fingerprint() == before

    def test_it_moves_with_the_distiller(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA]).double()
        for module in (distiller.student, distiller.teacher.model, distiller.methods):
            assert {p.dtype for p in module.parameters()} == {torch.float64}
        assert distiller.teacher.model.backbone.bn1.running_mean.dtype == torch.float64
        assert distiller.teacher.model.backbone.bn1.num_batches_tracked.dtype == torch.int64
        distiller.float()
        assert {p.dtype for p in distiller.teacher.model.parameters()} == {torch.float32}

    def test_it_moves_to_another_device(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA]).to('meta')
        assert {p.device.type for p in distiller.teacher.model.parameters()} == {'meta'}
        assert {b.device.type for b in distiller.teacher.model.buffers()} == {'meta'}

    def test_one_that_is_there_already_can_be_given(self, teacher):
        frozen = FrozenTeacher(**teacher)
        assert Distiller(dict(tiny_retinanet()), frozen, []).teacher is frozen


class TestOffIsOff:
    """With every weight at 0 the weights of the student are those of the plain training, bit for bit."""

    def train(self, cfg, optimizer, batch):
        model = build_model(cfg, seed=7)
        init_default_scope('mmengine')
        wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(optimizer)))
        initial = {k: v.clone() for k, v in model.state_dict().items()}
        model.train()
        for step in range(3):
            model.train_step(deepcopy(batch(seed=step)), wrapper)
        return model, initial

    @pytest.mark.parametrize(
        'optimizer',
        [
            dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
            dict(type='AdamW', lr=1e-3, weight_decay=0.05),
        ],
        ids=['sgd', 'adamw'],
    )
    @pytest.mark.parametrize('methods', [[], [ERA_OFF, FITNETS_OFF]], ids=['no method', 'weights of 0'])
    def test_the_student_is_trained_as_without(self, family, optimizer, methods):
        student, teacher, batch = family
        plain, initial = self.train(student, optimizer, batch)
        cfg = dict(type='mmrkd.Distiller', student=student, teacher=teacher, methods=methods)
        distiller, _ = self.train(cfg, optimizer, batch)
        assert_equal_states(student_part(distiller), plain.state_dict())
        assert sum(not torch.equal(v, initial[k]) for k, v in plain.state_dict().items()) > len(initial) // 2

    def test_with_a_method_it_is_not(self, family):
        """The comparison above can tell the difference."""
        student, teacher, batch = family
        optimizer = dict(type='SGD', lr=0.01)
        plain, _ = self.train(student, optimizer, batch)
        cfg = dict(type='mmrkd.Distiller', student=student, teacher=teacher, methods=[FITNETS])
        distiller, _ = self.train(cfg, optimizer, batch)
        assert any(not torch.equal(v, plain.state_dict()[k]) for k, v in student_part(distiller).items())

    @pytest.mark.parametrize('methods', [[], [ERA_OFF], [ERA_OFF, FITNETS_OFF]])
    def test_the_teacher_is_not_run(self, family, methods):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, methods).train()
        calls = [count_calls(module) for module in distiller.teacher.model.modules()]
        converted = []
        distiller.pair.convert = lambda *args: converted.append(args)
        losses = distiller(*model_inputs(distiller, batch()), mode='loss')
        assert not any(calls) and not converted
        assert not any('.' in name for name in losses)

    def test_one_method_that_is_on_is_enough(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA_OFF, FITNETS]).train()
        losses = distiller(*model_inputs(distiller, detection_batch()), mode='loss')
        assert {name for name in losses if '.' in name} == {'fitnets.loss_feat'}

    def test_building_it_draws_no_random_numbers(self, teacher):
        def drawn_after_building(cfg):
            torch.manual_seed(1)
            MODELS.build(ConfigDict(deepcopy(cfg))).init_weights()
            return torch.rand(1).item()

        init_default_scope('mmdet')
        cfg = dict(type='mmrkd.Distiller', student=tiny_retinanet(), teacher=teacher, methods=[ERA, FITNETS])
        assert drawn_after_building(cfg) == drawn_after_building(tiny_retinanet())


class TestLoss:
    def test_each_backbone_is_run_once_and_the_teachers_head_only_if_asked(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [dict(ERA, w_kd=0, w_twi=0), FITNETS]).train()
        own, others = count_calls(distiller.student.backbone), count_calls(distiller.teacher.model.backbone)
        head = count_calls(distiller.teacher.adapter.head)
        for step in range(2):
            losses = distiller(*model_inputs(distiller, batch(seed=step)), mode='loss')
            assert (len(own), len(others), len(head)) == (step + 1, step + 1, 0)
            assert 'era.loss_res_4' in losses

    def test_twi_and_kl_run_no_backbone_again(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [dict(ERA, w_kd=1.0, twi_on='all')]).train()
        own, others = count_calls(distiller.student.backbone), count_calls(distiller.teacher.model.backbone)
        head = count_calls(distiller.teacher.adapter.head)
        losses = distiller(*model_inputs(distiller, batch()), mode='loss')
        assert (len(own), len(others)) == (1, 1)
        judged = [name for name in losses if name.startswith('era.loss_twi')]
        assert len(judged) == 5
        assert len(head) == len(judged) + ('era.loss_kd' in losses)

    def test_the_students_losses_keep_their_names_and_values(self, family):
        student, teacher, batch = family
        distiller, plain = build_distiller(student, teacher, [ERA], seed=3), build_model(student, seed=3)
        inputs, samples = model_inputs(plain, batch())
        torch.manual_seed(1)
        expected = plain.train()(inputs, deepcopy(samples), mode='loss')
        torch.manual_seed(1)
        losses = distiller.train()(inputs, deepcopy(samples), mode='loss')
        assert list(losses)[: len(expected)] == list(expected)
        for name, value in expected.items():
            for a, b in zip(*([v] if torch.is_tensor(v) else v for v in (losses[name], value))):
                assert torch.equal(a, b), name
        assert all(name.startswith('era.') for name in list(losses)[len(expected) :])
        assert all('loss' in name for name in list(losses)[len(expected) :])

    def test_two_methods_together(self, teacher):
        alone = [build_distiller(tiny_retinanet(), teacher, [m], seed=3).train() for m in (ERA, FITNETS)]
        both = build_distiller(tiny_retinanet(), teacher, [ERA, FITNETS], seed=3).train()
        for method, single in zip(both.methods.values(), alone):
            method.load_state_dict(single.methods[0].state_dict())
        inputs, samples = model_inputs(both, detection_batch())
        losses = both(inputs, deepcopy(samples), mode='loss')
        assert list(both.methods) == ['era', 'fitnets']
        for single, name in zip(alone, both.methods):
            expected = {
                k: v for k, v in single(inputs, deepcopy(samples), mode='loss').items() if k.startswith(f'{name}.')
            }
            found = {k: v for k, v in losses.items() if k.startswith(f'{name}.')}
            assert found.keys() == expected.keys() and expected
            assert all(torch.allclose(found[k], v) for k, v in expected.items())

    def test_methods_of_the_same_name_are_numbered(self, teacher):
        methods = [FITNETS, ERA, dict(FITNETS, w_feat=2.0)]
        distiller = build_distiller(tiny_retinanet(), teacher, methods).train()
        assert list(distiller.methods) == ['fitnets', 'era', 'fitnets_2']
        distiller.methods[2].load_state_dict(distiller.methods[0].state_dict())
        losses = distiller(*model_inputs(distiller, detection_batch()), mode='loss')
        assert torch.allclose(losses['fitnets_2.loss_feat'], 2 * losses['fitnets.loss_feat'])

    @pytest.mark.parametrize('scale', [1.0, 0.25])
    def test_a_task_weight_is_reached_with_the_schedule(self, family, scale):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [Weighted(0.2), FITNETS], seed=3).train()
        distiller.methods['weighted'].scale = scale
        plain = build_model(student, seed=3).train()
        inputs, samples = model_inputs(plain, batch())
        torch.manual_seed(1)
        expected = plain(inputs, deepcopy(samples), mode='loss')
        torch.manual_seed(1)
        losses = distiller(inputs, deepcopy(samples), mode='loss')
        for name, value in expected.items():
            factor = 1 - 0.8 * scale if 'loss' in name else 1.0  # accuracies are not losses
            for a, b in zip(*([v] if torch.is_tensor(v) else v for v in (losses[name], value))):
                assert torch.allclose(a, factor * b), name
        assert 'weighted.gap' in losses

    def test_several_task_weights_are_refused(self, teacher):
        with pytest.raises(ValueError, match=r"own losses: {'weighted': 0.5, 'weighted_2': 0.2}.*give it"):
            build_distiller(tiny_retinanet(), teacher, [Weighted(0.5), Weighted(0.2)])
        build_distiller(tiny_retinanet(), teacher, [Weighted(0.5), FITNETS, Weighted(1.0)])

    def test_gradients_reach_student_and_methods(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [ERA, FITNETS]).train()
        total, _ = distiller.parse_losses(distiller(*model_inputs(distiller, batch()), mode='loss'))
        total.backward()
        for name, parameter in distiller.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f'{name}: DDP would wait for its gradient'
        assert all(p.grad is None for p in distiller.teacher.model.parameters())

    @pytest.mark.parametrize(
        'options',
        [
            dict(detach_student=True),
            dict(detach_student=True, w_feat=0, twi_on='last'),
            dict(w_feat=0, twi_on='last'),
            dict(w_res=0, twi_on='none'),
            dict(w_res=0, w_feat=0, twi_on='ends'),
            dict(w_res=0, w_feat=0, twi_on='none', w_kd=1.0),
            dict(wiring='mix'),
            dict(wiring='mix', num_branches=1),
            dict(wiring='cascade', neck=dict(shared_blocks=1, shared_close=True)),
        ],
        ids=lambda options: ', '.join(f'{k}={v}' for k, v in options.items()),
    )
    @pytest.mark.parametrize('kind', ['classifier', 'retinanet'])
    def test_every_parameter_that_asks_for_a_gradient_gets_one(self, kind, options, tmp_path):
        """DDP stops in the second iteration otherwise."""
        cfg, batch = FAMILIES[kind]
        teacher = save_random_teacher(cfg(12), tmp_path)
        distiller = build_distiller(cfg(), teacher, [dict(ERA, **options)]).train()
        total, _ = distiller.parse_losses(distiller(*model_inputs(distiller, batch()), mode='loss'))
        total.backward()
        assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all(p.grad is not None for p in distiller.student.parameters() if p.requires_grad)


class TestPredict:
    def predictions(self, model, inputs, samples):
        with torch.no_grad():
            found = model(inputs, deepcopy(samples), mode='predict')
        if hasattr(found[0], 'pred_score'):
            return [dict(scores=sample.pred_score) for sample in found]
        return [{key: sample.pred_instances[key] for key in ('bboxes', 'scores', 'labels')} for sample in found]

    def assert_equal_predictions(self, found, expected):
        assert any(len(image['scores']) for image in expected)
        for a, b in zip(found, expected):
            assert all(torch.equal(a[key], b[key]) for key in b)

    def test_the_student_predicts_what_the_plain_model_predicts(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [ERA]).train()
        wrapper = build_optim_wrapper(distiller, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001)))
        distiller.train_step(deepcopy(batch(seed=1)), wrapper)
        plain = build_model(student, seed=9)
        plain.load_state_dict(student_part(distiller), strict=True)
        inputs, samples = model_inputs(plain, batch(), training=False)
        expected = self.predictions(plain.eval(), inputs, samples)
        self.assert_equal_predictions(self.predictions(distiller.eval(), inputs, samples), expected)

    def test_the_teacher_predicts_what_it_predicts_on_its_own(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, []).eval()
        distiller.set_variant('teacher')
        plain = build_model(teacher['cfg'], seed=5).eval()
        inputs, samples = model_inputs(plain, batch(), training=False)
        expected = self.predictions(plain, inputs, samples)
        self.assert_equal_predictions(self.predictions(distiller, inputs, samples), expected)

    def test_test_step_predicts_as_the_variant(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [ERA]).eval()
        found = {}
        for variant in distiller.variants:
            distiller.set_variant(variant)
            sample = distiller.test_step(batch(1))[0]
            found[variant] = sample.pred_score if 'pred_score' in sample else sample.pred_instances.scores
        for a, b in [('student', 'teacher'), ('student', 'integrated'), ('teacher', 'integrated')]:
            assert found[a].shape != found[b].shape or not torch.equal(found[a], found[b])

    def test_the_tensor_mode_is_the_students(self, family):
        student, teacher, batch = family
        distiller = build_distiller(student, teacher, [ERA]).eval()
        inputs, samples = model_inputs(distiller, batch(), training=False)
        torch.manual_seed(1)
        expected = distiller.student(inputs, deepcopy(samples))
        torch.manual_seed(1)
        found = distiller(inputs, deepcopy(samples))

        def flat(value):
            return [value] if torch.is_tensor(value) else [t for part in value for t in flat(part)]

        assert len(flat(found)) == len(flat(expected)) > 0
        assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected)))

    def test_variants(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA])
        assert distiller.variant == 'student'
        assert tuple(distiller.variants) == ('student', 'teacher', 'integrated', 'blend')
        assert tuple(build_distiller(tiny_retinanet(), teacher, [FITNETS]).variants) == ('student', 'teacher')
        assert build_distiller(tiny_retinanet(), teacher, [ERA], variant='integrated').variant == 'integrated'

    def test_an_unknown_variant_is_refused(self, teacher):
        distiller = build_distiller(tiny_retinanet(), teacher, [ERA])
        with pytest.raises(ValueError, match="no variant 'bridge'.*'student', 'teacher', 'integrated', 'blend'"):
            distiller.set_variant('bridge')
        assert distiller.variant == 'student'
        with pytest.raises(ValueError, match="no variant 'integrated'"):
            build_distiller(tiny_retinanet(), teacher, [], variant='integrated')


class TestConfig:
    PLAIN = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    # As a runner would without a pretrained checkpoint: nothing is downloaded.
    OPTIONS = {'model.student.backbone.init_cfg': None}

    def test_seven_lines_around_a_config_of_mmdet(self, tmp_path):
        cfg = load_plain(self.PLAIN)
        torch.save(dict(state_dict=build_without_init(cfg).state_dict()), tmp_path / 'r18.pth')
        text = f"""
_base_ = '{self.PLAIN}'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(cfg='{self.PLAIN}', ckpt='{tmp_path}/r18.pth'),
    methods=[dict(type='mmrkd.ERA')])
"""
        assert len([line for line in text.splitlines() if line.strip()]) <= 7
        (tmp_path / 'era.py').write_text(text)
        distillation = Config.fromfile(tmp_path / 'era.py')
        distillation.merge_from_dict(self.OPTIONS)
        init_default_scope(distillation.default_scope)
        distiller = MODELS.build(distillation.model)
        distiller.init_weights()
        assert distiller.match.pairs == tuple((i, i) for i in range(5))
        plain = build_without_init(cfg)
        assert list(student_part(distiller)) == list(plain.state_dict())
        assert_equal_states(distiller.teacher.model.state_dict(), torch.load(tmp_path / 'r18.pth')['state_dict'])
        # Nothing but the model changed; mmengine writes the scope of an inherited library config into its parts.
        assert without_scope(dict(distillation, model=None)) == without_scope(dict(load_plain(self.PLAIN), model=None))

    def test_the_preprocessor_beside_a_model_of_mmpretrain(self, tmp_path):
        """A runner hands it to the model as an argument."""
        student = tiny_classifier()
        preprocessor = student.pop('data_preprocessor')
        teacher = save_random_teacher(tiny_classifier(12), tmp_path)
        distiller = build_distiller(student, teacher, [ERA], data_preprocessor=preprocessor)
        assert distiller.data_preprocessor is distiller.student.data_preprocessor
        assert distiller.data_preprocessor.mean.flatten().tolist() == [127.5] * 3
        assert distiller.pair.convert.same_pixels
        own = dict(tiny_classifier(), data_preprocessor=dict(preprocessor, mean=[1.0, 2.0, 3.0]))
        distiller = build_distiller(own, teacher, [ERA], data_preprocessor=preprocessor)
        assert distiller.data_preprocessor.mean.flatten().tolist() == [1.0, 2.0, 3.0]

    def test_student_and_teacher_that_do_not_fit_are_found_while_building(self, tmp_path, teacher):
        with pytest.raises(
            ValueError,
            match='the tasks differ: the student is a ImageClassifier .classification., the teacher a RetinaNet',
        ):
            build_distiller(tiny_classifier(), teacher, [])
        other = tiny_retinanet(12, 24)
        other['bbox_head']['num_classes'] = NUM_CLASSES + 1
        other = save_random_teacher(other, tmp_path, seed=6)
        with pytest.raises(ValueError, match=f'the student has {NUM_CLASSES} classes, the teacher {NUM_CLASSES + 1}'):
            build_distiller(tiny_retinanet(), other, [ERA])


def load_plain(name):
    from mmengine.hub import get_config

    return get_config(name).to_dict()


def without_scope(value):
    if isinstance(value, dict):
        return {k: without_scope(v) for k, v in value.items() if k != '_scope_'}
    return [without_scope(v) for v in value] if isinstance(value, (list, tuple)) else value


def build_without_init(cfg):
    init_default_scope('mmdet')
    return MODELS.build(ConfigDict(deepcopy(cfg['model'])))


class Listening(DistillMethod):
    """Keeps the views that it is given."""

    student_taps = ('backbone.layer1', 'bbox_head.retina_cls')
    teacher_taps = ('backbone.layer4', 'neck')

    def losses(self, student, teacher, samples):
        self.views = student, teacher
        return {}


class TestTaps:
    def test_methods_get_the_outputs_that_they_ask_for(self, wide_retinanet):
        model = build_distiller(tiny_retinanet(), wide_retinanet, [Listening()])
        inputs, samples = model_inputs(model, detection_batch())
        model.loss(inputs, samples)
        student, teacher = model.methods[0].views
        assert set(student.taps) == set(Listening.student_taps) and set(teacher.taps) == set(Listening.teacher_taps)
        assert student.taps['backbone.layer1'].shape == (2, 8, 24, 24) and student.taps['backbone.layer1'].requires_grad
        assert teacher.taps['backbone.layer4'].shape == (2, 128, 3, 3)
        assert all(tap is f for tap, f in zip(teacher.taps['neck'], teacher.feats))
        assert not any(tap.requires_grad for tap in teacher.taps['neck'])

    def test_a_name_that_is_not_there_is_refused_while_building(self, wide_retinanet):
        method = Listening()
        method.student_taps = ('backbone.layer11',)
        with pytest.raises(KeyError, match=r"RetinaNet has no module 'backbone.layer11'.*'backbone.layer1'"):
            build_distiller(tiny_retinanet(), wide_retinanet, [method])
        method.student_taps, method.teacher_taps = (), ('nick',)
        with pytest.raises(KeyError, match=r"no module 'nick'.*'neck'"):
            build_distiller(tiny_retinanet(), wide_retinanet, [method])
