"""What is exported predicts exactly what the distiller predicted."""

import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.engine.cost import measure_cost
from mmrkd.export import export, load_distiller, plain_config
from mmrkd.registry import HOOKS, MODELS
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    save_random_teacher,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_retinanet,
)

PAIRS = {
    'retinanet': (tiny_retinanet(8, 16), tiny_retinanet(16, 32), detection_batch()),
    'faster_rcnn': (tiny_faster_rcnn(8, 16), tiny_faster_rcnn(16, 32), detection_batch()),
    'classifier': (tiny_classifier(8), tiny_classifier(16), classification_batch()),
}


def trained(name, folder, models=None, method=None):
    """A distillation config, a checkpoint as a run would save it, the distiller, and a batch."""
    student, teacher, batch = models or PAIRS[name]
    teacher = save_random_teacher(teacher, folder)
    methods = [method or dict(type='mmrkd.ERA')]
    distiller = build_distiller(student, teacher, methods, seed=3).eval()
    for parameter in distiller.methods.parameters():  # otherwise the branches add next to nothing
        torch.nn.init.normal_(parameter, std=0.1)
    cfg = Config(
        dict(
            model=dict(type='mmrkd.Distiller', student=student, teacher=teacher, methods=methods),
            custom_hooks=[dict(type='NumClassCheckHook'), dict(type='mmrkd.SplitCheckpointHook')],
            val_cfg=dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated')),
            optim_wrapper=dict(type='mmrkd.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        )
    )
    state = distiller.state_dict()
    methods_state = {k: state.pop(k) for k in list(state) if k.startswith('methods.')}
    ckpt = f'{folder}/run.pth'
    meta = dict(epoch=1, dataset_meta=dict(classes=('a', 'b')), cfg='secret')
    torch.save({'state_dict': state, METHOD_STATE: dict(state_dict=methods_state), 'meta': meta}, ckpt)
    return cfg, ckpt, distiller, batch


def scores(model, batch):
    sample = model(*model_inputs(model, batch, False), mode='predict')[0]
    return sample.pred_instances.bboxes if 'pred_instances' in sample else sample.pred_score


@pytest.mark.parametrize('name', PAIRS)
def test_student_is_plain_and_predicts_the_same(name, tmp_path):
    cfg, ckpt, distiller, batch = trained(name, tmp_path)
    config, weights = export(cfg, ckpt, str(tmp_path / 'out'), 'student')
    assert 'mmrkd' not in open(config).read()
    plain = Config.fromfile(config)
    assert [hook.type for hook in plain.custom_hooks] == ['NumClassCheckHook']
    assert plain.val_cfg.type == 'ValLoop' and plain.optim_wrapper.type == 'OptimWrapper'
    model = MODELS.build(plain.model).eval()
    saved = torch.load(weights, weights_only=True)
    model.load_state_dict(saved['state_dict'], strict=True)
    assert saved['meta'] == dict(epoch=1, dataset_meta=dict(classes=('a', 'b')))
    assert torch.equal(scores(model, batch), scores(distiller, batch))


@pytest.mark.parametrize('name', PAIRS)
def test_integrated_is_an_ordinary_config_and_predicts_the_same(name, tmp_path):
    cfg, ckpt, distiller, batch = trained(name, tmp_path)
    config, weights = export(cfg, ckpt, str(tmp_path / 'out'), 'integrated')
    written = Config.fromfile(config)
    assert written.custom_imports.imports == ['mmrkd'] and written.model.type != 'mmrkd.Distiller'
    model = MODELS.build(written.model).eval()
    model.load_state_dict(torch.load(weights, weights_only=True)['state_dict'], strict=True)
    distiller.set_variant('integrated')
    expected = scores(distiller, batch)
    assert torch.equal(scores(model, batch), expected)
    distiller.set_variant('student')
    assert not torch.equal(scores(distiller, batch), expected)


@pytest.mark.parametrize('name', PAIRS)
@pytest.mark.parametrize('form, method', [('bridge', dict(type='mmrkd.SemiOnlineKD', split='layer4')),
                                          ('peer', dict(type='mmrkd.DeepMutualLearning'))])  # fmt: skip
def test_copies_of_the_teacher_are_plain_models_and_predict_the_same(name, form, method, tmp_path):
    cfg, ckpt, distiller, batch = trained(name, tmp_path, method=method)
    config, weights = export(cfg, ckpt, str(tmp_path / 'out'), form)
    assert 'mmrkd' not in open(config).read()
    model = MODELS.build(Config.fromfile(config).model).eval()
    saved = torch.load(weights, weights_only=True)
    model.load_state_dict(saved['state_dict'], strict=True)
    assert saved['meta'] == dict(epoch=1, dataset_meta=dict(classes=('a', 'b')))
    distiller.set_variant(form)
    expected = scores(distiller, batch)
    assert torch.equal(scores(model, batch), expected)
    assert torch.equal(scores(distiller.variants[form].build(), batch), expected)
    distiller.set_variant('teacher')
    assert not torch.equal(scores(distiller, batch), expected)


def test_a_copy_that_no_method_trains_is_refused(tmp_path):
    cfg, ckpt, *_ = trained('classifier', tmp_path)
    with pytest.raises(ValueError, match="no variant 'bridge'"):
        export(cfg, ckpt, str(tmp_path / 'out'), 'bridge')


RESIDUAL = {
    'retinanet': (paired(tiny_retinanet(8, 16), 6, 3), tiny_retinanet(16, 32), detection_batch()),
    'classifier': (paired(tiny_classifier(8), 6, 3), tiny_classifier(16), classification_batch()),
}


@pytest.mark.parametrize('form', ['student', 'integrated', 'student_alone'])
@pytest.mark.parametrize('name', RESIDUAL)
def test_student_and_assistant_are_an_ordinary_config(name, form, tmp_path):
    cfg, ckpt, distiller, batch = trained(name, tmp_path, RESIDUAL[name], dict(type='mmrkd.ResidualKD'))
    config, weights = export(cfg, ckpt, str(tmp_path / 'out'), form)
    written = Config.fromfile(config)
    assert written.custom_imports.imports == ['mmrkd'] and written.model.type == cfg.model.student.type
    assert not written.get('custom_hooks') or [hook.type for hook in written.custom_hooks] == ['NumClassCheckHook']
    model = MODELS.build(written.model).eval()
    model.load_state_dict(torch.load(weights, weights_only=True)['state_dict'], strict=True)
    whole = scores(distiller, batch)
    with distiller.student.backbone.unassisted():
        alone = scores(distiller, batch)
    assert torch.equal(scores(model, batch), alone if form == 'student_alone' else whole)
    assert not torch.equal(alone, whole)


@pytest.mark.slow
def test_plain_mmdet_loads_student_and_assistant_with_custom_imports_alone(tmp_path):
    """In a process of its own, into which nothing but the config brings mmrkd."""
    cfg, ckpt, distiller, batch = trained('retinanet', tmp_path, RESIDUAL['retinanet'], dict(type='mmrkd.ResidualKD'))
    cfg.test_dataloader = dict(dataset=dict(pipeline=[]))
    config, weights = export(cfg, ckpt, str(tmp_path / 'out'), 'student')
    inputs, _ = model_inputs(distiller, batch, False)
    torch.save(inputs, tmp_path / 'image.pth')
    script = f"""
import sys, torch
from mmdet.apis import init_detector
assert 'mmrkd' not in sys.modules
model = init_detector({config!r}, {weights!r}, palette='random', device='cpu')
assert type(model).__name__ == 'RetinaNet' and 'mmrkd' in sys.modules
torch.save(model.extract_feat(torch.load({str(tmp_path / 'image.pth')!r})), {str(tmp_path / 'found.pth')!r})
"""
    run = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=280)
    said = run.stdout + run.stderr
    assert run.returncode == 0 and 'missing keys' not in said and 'unexpected key' not in said, said
    with torch.no_grad():
        expected = distiller.student.extract_feat(inputs)
    assert all(torch.equal(a, b) for a, b in zip(torch.load(tmp_path / 'found.pth'), expected))


def test_cost_of_each_variant(tmp_path):
    cfg, ckpt, distiller, batch = trained('retinanet', tmp_path, RESIDUAL['retinanet'], dict(type='mmrkd.ResidualKD'))
    models = {v: distiller.variants[v].build() for v in ('student', 'integrated', 'student_alone')}
    costs = {variant: measure_cost(model, batch, repeats=1) for variant, model in models.items()}
    assert (costs['student'].params, costs['student'].flops) == (costs['integrated'].params, costs['integrated'].flops)
    backbone = distiller.student.backbone
    assistant = sum(p.numel() for module in backbone.assistant_modules() for p in module.parameters())
    assert costs['student'].params - costs['student_alone'].params == assistant > 0
    assert costs['student_alone'].flops < costs['student'].flops
    assert torch.equal(scores(models['integrated'], batch), scores(distiller, batch))


def test_a_neck_with_an_assistant_is_exported_without_it(tmp_path):
    student = tiny_retinanet(8, 16)
    student['neck'] = dict(type='mmrkd.ResidualAssistantNeck', in_channels=16, num_levels=3, neck=student['neck'])
    models = (student, tiny_retinanet(16, 32), detection_batch())
    cfg, ckpt, distiller, batch = trained('neck', tmp_path, models, dict(type='mmrkd.ResidualKD'))
    config, weights = export(cfg, ckpt, str(tmp_path / 'out'), 'student_alone')
    model = MODELS.build(Config.fromfile(config).model).eval()
    model.load_state_dict(torch.load(weights, weights_only=True)['state_dict'], strict=True)
    with distiller.student.neck.unassisted():
        expected = scores(distiller, batch)
    assert torch.equal(scores(model, batch), expected)


def test_a_config_keeps_its_own_imports_beside_mmrkd(tmp_path):
    cfg, *_ = trained('retinanet', tmp_path, RESIDUAL['retinanet'], dict(type='mmrkd.ResidualKD'))
    cfg.custom_imports = dict(imports=['json', 'mmrkd'])
    assert plain_config(cfg).custom_imports.imports == ['json', 'mmrkd']
    cfg = trained('retinanet', tmp_path)[0]
    assert 'custom_imports' not in plain_config(cfg)
    for imports, left in (['json', 'mmrkd'], ['json']), (['mmrkd'], None), ('mmrkd', None):
        cfg.custom_imports = dict(imports=imports)
        assert (plain_config(cfg).get('custom_imports') or {}).get('imports') == left


def test_hooks_of_a_distillation_are_not_in_a_plain_config(tmp_path):
    """Plain mmdet does not know them, and each asks a distiller for its methods."""
    cfg = trained('retinanet', tmp_path)[0]
    own = [hook for hook in HOOKS.module_dict if hook != 'ResumableCheckpointHook']
    assert {'DistillScheduleHook', 'ExpandHook', 'CompileHook', 'PhaseHook'} <= set(own)
    cfg.custom_hooks = [dict(type='NumClassCheckHook'), *(dict(type=f'mmrkd.{hook}') for hook in own)]
    cfg.custom_hooks.append(dict(type=HOOKS.get('mmrkd.ExpandHook'), at=[1]))
    assert [hook.type for hook in plain_config(cfg).custom_hooks] == ['NumClassCheckHook']


def test_load_distiller_restores_every_weight(tmp_path):
    cfg, ckpt, distiller, _ = trained('retinanet', tmp_path)
    loaded = load_distiller(cfg, ckpt).state_dict()
    assert loaded.keys() == distiller.state_dict().keys()
    assert all(torch.equal(value, loaded[key]) for key, value in distiller.state_dict().items())


def test_plain_checkpoint_has_no_integrated_form(tmp_path):
    cfg, ckpt, *_ = trained('retinanet', tmp_path)
    checkpoint = torch.load(ckpt, weights_only=True)
    del checkpoint[METHOD_STATE]
    torch.save(checkpoint, ckpt)
    with pytest.raises(ValueError, match='plain checkpoint'):
        export(cfg, ckpt, str(tmp_path / 'out'), 'integrated')


def test_methods_without_an_integrated_form_are_refused(tmp_path):
    student, teacher, _ = PAIRS['retinanet']
    teacher = save_random_teacher(teacher, tmp_path)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.FitNets')])
    with pytest.raises(ValueError, match="no variant 'integrated'"):
        distiller.set_variant('integrated')


def test_integrated_needs_every_level_of_the_teacher(tmp_path):
    student = tiny_retinanet(8, 16, strides=(8, 16, 32))
    teacher = save_random_teacher(tiny_retinanet(16, 32, strides=(8, 16, 32, 64)), tmp_path)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.ERA')])
    with pytest.raises(ValueError, match='4 levels, 3 of them matched'):
        distiller.set_variant('integrated')


def test_integrated_of_a_student_with_more_levels_is_refused(tmp_path):
    models = (tiny_retinanet(strides=(8, 16, 32, 64)), tiny_retinanet(16, 24), detection_batch())
    cfg, ckpt, distiller, _ = trained('more', tmp_path, models)
    assert 'integrated' in distiller.variants
    with pytest.raises(ValueError, match='the student has 4 levels, of which the teacher reads 3'):
        export(cfg, ckpt, str(tmp_path / 'out'), 'integrated')


def test_a_copy_of_a_teacher_with_an_input_size_is_refused(tmp_path):
    cfg, ckpt, *_ = trained('classifier', tmp_path, method=dict(type='mmrkd.SemiOnlineKD'))
    cfg.model.teacher.input_size = (64, 64)
    with pytest.raises(ValueError, match=r'a bridge runs on images .* \(64, 64\)'):
        export(cfg, ckpt, str(tmp_path / 'out'), 'bridge')
    assert not (tmp_path / 'out').exists()


def test_unknown_form_and_variant_are_refused(tmp_path):
    cfg, ckpt, distiller, _ = trained('retinanet', tmp_path)
    with pytest.raises(ValueError, match="no variant 'fused'.*'student', 'teacher', 'integrated', 'blend'"):
        export(cfg, ckpt, str(tmp_path / 'out'), 'fused')
    for refused in (lambda: export(cfg, ckpt, str(tmp_path / 'out'), 'blend'), distiller.variants['blend'].build):
        with pytest.raises(ValueError, match=r"'blend' is not one model; its parts are \('student', 'integrated'\)"):
            refused()
    assert not (tmp_path / 'out').exists()


def test_plain_config_leaves_the_original_untouched(tmp_path):
    cfg, *_ = trained('retinanet', tmp_path)
    before = cfg.pretty_text
    plain_config(cfg)
    assert cfg.pretty_text == before


def test_init_detector_loads_a_checkpoint_of_the_training_into_the_plain_config(tmp_path, caplog, capfd):
    from mmdet.apis import inference_detector, init_detector

    cfg, ckpt, distiller, _ = trained('retinanet', tmp_path)
    plain = plain_config(cfg)
    plain.test_dataloader = dict(
        dataset=dict(
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(96, 96), keep_ratio=False),
                dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor')),
            ]
        )
    )
    model = init_detector(plain, ckpt, palette='random', device='cpu')
    said = caplog.text + ''.join(capfd.readouterr())
    assert 'missing keys' not in said and 'unexpected key' not in said
    assert model.dataset_meta['classes'] == ('a', 'b')
    image = torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8).numpy()
    found = inference_detector(model, image).pred_instances
    expected = inference_detector(_with_config(distiller, plain), image).pred_instances
    assert len(found) > 0 and torch.equal(found.bboxes, expected.bboxes) and torch.equal(found.scores, expected.scores)


def _with_config(model, cfg):
    model.cfg = cfg
    return model
