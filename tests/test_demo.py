"""The detector that ships with the package is small, is a plain checkpoint, and finds what is there."""

import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmrkd.commands import main
from mmrkd.datasets import digit_scene
from mmrkd.demo import CHECKPOINT, load_demo
from mmrkd.visualization import Found, compare_found

pytest.importorskip('sklearn')


def test_the_checkpoint_is_small_and_plain():
    assert os.path.getsize(CHECKPOINT) < 1_000_000
    saved = torch.load(CHECKPOINT, weights_only=True)
    assert set(saved) == {'state_dict', 'meta'} and saved['meta']['dataset_meta']['classes'] == tuple('0123456789')
    model, _ = load_demo()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_it_finds_digits_that_it_has_never_seen_and_is_more_often_right_than_wrong(tmp_path, capsys):
    hits = total = wrong = 0
    for seed in range(5):
        main(['demo', '--seed', str(seed), '--out', str(tmp_path / 'a.png')])
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if ' at ' in line]
        boxes = [[float(side.strip(',')) for side in row[3:]] for row in rows]
        found = Found(np.array(boxes), np.array([int(row[0]) for row in rows]), np.array([float(r[1]) for r in rows]))
        _, labels, truth = digit_scene(seed)
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in truth])
        result = compare_found(found, Found(corners, np.array(labels), np.ones(len(labels))))
        hits, total, wrong = hits + len(result.same), total + len(labels), wrong + len(found.labels) - len(result.same)
    assert total > 15 and hits > 0.3 * total and wrong < hits
    assert Image.open(tmp_path / 'a.png').size[0] > 800


def test_an_image_of_ones_own(tmp_path, capsys):
    scene, labels, _ = digit_scene(3)
    path = str(tmp_path / 'scene.png')
    cv2.imwrite(path, scene)
    main(['demo', path, '--out', str(tmp_path / 'own.png')])
    own = capsys.readouterr().out.splitlines()[:-1]
    main(['demo', '--seed', '3', '--out', str(tmp_path / 'made.png')])
    assert own == capsys.readouterr().out.splitlines()[:-1] and own
    assert Image.open(tmp_path / 'own.png').size[0] < Image.open(tmp_path / 'made.png').size[0]


def test_what_is_no_image(tmp_path):
    (tmp_path / 'a.txt').write_text('no image')
    with pytest.raises(SystemExit, match='is no image that can be read'):
        main(['demo', str(tmp_path / 'a.txt')])


def test_a_scene_depends_on_its_seed_alone():
    first, again, other = (digit_scene(seed)[0] for seed in (1, 1, 2))
    assert first.shape == (160, 160, 3) and (first == again).all() and (first != other).any()
