"""Pictures are drawn beside a training, not in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmrkd
from mmrkd.engine.compose import compose
from mmrkd.engine.hooks import FeatureMapsHook
from mmrkd.engine.hooks.feature_maps_hook import as_image
from mmrkd.structures import StudentView
from mmrkd.testing import (
    build_distiller,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_retinanet,
)


@pytest.fixture
def detect(squares, tmp_path):
    """Returns a function that trains the detector of the squares for two epochs."""

    def detect(name, hooks):
        cfg = compose(Config.fromfile(squares.student), squares.teacher, squares.ckpt, ['era', 'fitnets'])
        cfg.merge_from_dict(
            dict(
                work_dir=str(tmp_path / name),
                experiment_name=f'{tmp_path.name} {name}',
                launcher='none',
                custom_hooks=hooks,
                check=False,
                diagnosis=False,
                log_level='ERROR',
            )
        )
        cfg.train_cfg.max_epochs = 2
        runner = mmrkd.Runner.from_cfg(cfg)
        runner.train()
        return runner

    return detect


@pytest.mark.slow
def test_the_training_is_the_same_and_the_pictures_are_there(detect, tmp_path):
    plain = detect('plain', [])
    drawn = detect('drawn', [dict(type='mmrkd.FeatureMapsHook', images=2)])
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, drawn.model.state_dict()[name]), name
    pictures = sorted(path.name for path in Path(tmp_path / 'drawn').rglob('*.png'))
    assert len(pictures) == 4 and not list(Path(tmp_path / 'plain').rglob('*.png'))  # 2 images after 2 validations
    (scalars,) = Path(tmp_path / 'drawn').rglob('scalars.json')
    shares = [line for line in map(json.loads, scalars.read_text().splitlines()) if 'era/residual_explained' in line]
    assert len(shares) == 2


def test_what_era_shows_adds_up(tmp_path):
    teacher = save_random_teacher(tiny_retinanet(16, 24), tmp_path)
    distiller = build_distiller(tiny_retinanet(), teacher, [dict(type='mmrkd.ERA')]).eval()
    inputs, samples = model_inputs(distiller, detection_batch())
    method = distiller.methods['era']
    feats = distiller.adapter.extract(inputs)
    own = method.pair.student_feats(feats)
    teacher = method.pair.teacher_view(method.pair.teacher_pass(inputs, samples), own)
    maps = method.pictures(StudentView(inputs, own, feats), teacher)
    assert list(maps) == ['teacher', 'student', 'residual', 'D_1', 'D_2', 'left over']
    for level in range(3):
        f_t, h_0, r_1, d_1, d_2, left = (features[level] for features in maps.values())
        torch.testing.assert_close(f_t - h_0, r_1)
        torch.testing.assert_close(r_1 - d_1 - d_2, left, atol=1e-6, rtol=1e-5)


def test_pooled_features_have_numbers_and_no_picture(run_cfg, tmp_path):
    hooks = [dict(type='mmrkd.FeatureMapsHook', images=2)]
    cfg = run_cfg(tmp_path, methods=[dict(type='mmrkd.ERA'), dict(type='mmrkd.FitNets')], diagnosis=False)
    cfg.custom_hooks += hooks
    Runner.from_cfg(cfg).train()
    (scalars,) = tmp_path.rglob('scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    shares = [line['era/residual_explained'] for line in lines if 'era/residual_explained' in line]
    assert len(shares) == 2 and all(np.isfinite(share) and share <= 1 for share in shares)
    assert not list(tmp_path.rglob('*.png')) and not any('fitnets/' in key for line in lines for key in line)


def test_numbers_out_of_range_are_refused():
    for arguments in (dict(interval=0), dict(images=0)):
        with pytest.raises(ValueError, match='expected interval >= 1 and images >= 1'):
            FeatureMapsHook(**arguments)


def test_as_image():
    pixels = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 2, 2)
    assert as_image(pixels)[0, 0].tolist() == [0, 127, 255] and as_image(pixels).dtype == np.uint8
