import hashlib
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('sklearn')

from mmrkd.datasets import DIGIT_CLASSES, make_digit_scenes
from mmrkd.datasets.digit_scenes import split_scans, tight_box

ROOT = Path(__file__).parents[2]
SPLITS = ('train', 'val', 'test')
SMALL = dict(num_train=6, num_val=5, num_test=5)


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digits'
    assert make_digit_scenes(root, **SMALL)
    return root


def annotations(root, split='train'):
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def hashes(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def boxes_of(content, image_id):
    return [entry['bbox'] for entry in content['annotations'] if entry['image_id'] == image_id]


def ink_of(root, image, split='train'):
    """Pixels that are more ink than paper, where both are plain."""
    return cv2.imread(str(root / 'images' / split / image['file_name']), cv2.IMREAD_GRAYSCALE) < 127.5


def test_a_seed_fixes_every_file_and_leaves_the_global_random_state_alone(tmp_path, digits):
    state = np.random.get_state()[1].copy()
    make_digit_scenes(tmp_path / 'same', **SMALL)
    make_digit_scenes(tmp_path / 'other', **SMALL, seed=1)
    assert (np.random.get_state()[1] == state).all()
    first, same, other = hashes(digits), hashes(tmp_path / 'same'), hashes(tmp_path / 'other')
    assert len(first) == 6 + 5 + 5 + len(SPLITS) + 1
    assert same == first
    assert other.keys() == first.keys()
    assert not set(other.values()) & set(first.values())


def test_no_scan_is_in_two_splits():
    scans = split_scans(0)
    seen = {split: {scan.tobytes() for part in scans[split] for scan in part} for split in SPLITS}
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 1797
    assert [round(len(seen[split]) / 1797, 2) for split in SPLITS] == [0.6, 0.2, 0.2]


def test_scenes_of_a_split_are_drawn_from_its_scans_alone(tmp_path, monkeypatch):
    """Each split is given scans of another shape, which its scene must show: falling, rising, filled."""
    shapes = dict(train=np.eye(8), val=np.eye(8)[::-1], test=np.ones((8, 8)))
    scans = {split: [np.float32([shape])] * 10 for split, shape in shapes.items()}
    monkeypatch.setattr('mmrkd.datasets.digit_scenes.split_scans', lambda seed: scans)
    make_digit_scenes(tmp_path, num_train=1, num_val=1, num_test=1, digits_per_scene=(1, 1), clutter=0)
    ys, xs, filled = {}, {}, {}
    for split in SPLITS:
        ink = ink_of(tmp_path, annotations(tmp_path, split)['images'][0], split)
        ys[split], xs[split] = np.nonzero(ink)
        filled[split] = ink.sum() / annotations(tmp_path, split)['annotations'][0]['area']
    assert np.corrcoef(xs['train'], ys['train'])[0, 1] > 0.7
    assert np.corrcoef(xs['val'], ys['val'])[0, 1] < -0.7
    assert filled['test'] > 0.7 > 0.5 > max(filled['train'], filled['val'])


@pytest.mark.parametrize('split', SPLITS)
def test_annotations_are_whole_and_boxes_lie_inside(digits, split):
    content = annotations(digits, split)
    assert [(entry['id'], entry['name']) for entry in content['categories']] == list(enumerate(DIGIT_CLASSES, start=1))
    assert {entry['category_id'] for entry in content['annotations']} == set(range(1, 11))
    assert [entry['id'] for entry in content['annotations']] == list(range(1, len(content['annotations']) + 1))
    for image in content['images']:
        picture = cv2.imread(str(digits / 'images' / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3) == (160, 160, 3)
        assert 1 <= len(boxes_of(content, image['id'])) <= 8
    for entry in content['annotations']:
        x, y, width, height = entry['bbox']
        assert 0 <= x < x + width <= 160 and 0 <= y < y + height <= 160
        assert entry['area'] == width * height and entry['iscrowd'] == 0


def test_the_box_of_a_lone_digit_is_the_extent_of_its_ink(tmp_path):
    make_digit_scenes(tmp_path, 12, 1, 1, image_size=(200, 120), digits_per_scene=(1, 1), clutter=0)
    content = annotations(tmp_path)
    for image in content['images']:
        ys, xs = np.nonzero(ink_of(tmp_path, image))
        expected = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        assert boxes_of(content, image['id']) == [expected]


def test_all_ink_lies_in_boxes_and_every_side_of_a_box_touches_ink(tmp_path):
    make_digit_scenes(tmp_path, 6, 1, 1, digits_per_scene=(6, 8), clutter=0)
    content = annotations(tmp_path)
    for image in content['images']:
        ink = ink_of(tmp_path, image)
        outside = ink.copy()
        for x, y, width, height in boxes_of(content, image['id']):
            patch = ink[y : y + height, x : x + width]
            assert patch[0].any() and patch[-1].any() and patch[:, 0].any() and patch[:, -1].any()
            outside[y : y + height, x : x + width] = False
        assert not outside.any()


def test_tight_box_of_a_mask():
    mask = np.zeros((5, 7), bool)
    mask[1, 2] = mask[3, 5] = True
    assert tight_box(mask) == [2, 1, 4, 3]


def test_classes_are_balanced(tmp_path):
    make_digit_scenes(tmp_path, 40, 1, 1)
    counts = np.bincount([entry['category_id'] for entry in annotations(tmp_path)['annotations']])[1:]
    assert counts.min() > 15
    assert counts.max() - counts.min() <= 1


def test_the_same_arguments_again_write_nothing(digits):
    before = {path: path.stat().st_mtime_ns for path in digits.rglob('*')}
    assert not make_digit_scenes(digits, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in digits.rglob('*')} == before


def test_other_arguments_replace_the_set_and_keep_what_is_not_ours(tmp_path):
    make_digit_scenes(tmp_path, 4, 2, 2)
    note = tmp_path / 'images/train/note.txt'
    note.write_text('mine')
    assert make_digit_scenes(tmp_path, 2, 2, 2)
    assert sorted(path.name for path in note.parent.iterdir()) == ['000001.png', '000002.png', 'note.txt']
    assert note.read_text() == 'mine'
    assert len(annotations(tmp_path)['images']) == 2


def test_a_run_that_was_cut_short_is_made_anew(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('mmrkd.datasets.digit_scenes._write_split', fail)
        with pytest.raises(KeyboardInterrupt):
            make_digit_scenes(tmp_path, 2, 2, 2)
    assert make_digit_scenes(tmp_path, 2, 2, 2)
    assert not make_digit_scenes(tmp_path, 2, 2, 2)


@pytest.mark.parametrize('name, text', [('photo.png', 'a picture'), ('meta.json', '{"made": "elsewhere"}')])
def test_a_folder_of_somebody_else_is_refused_and_untouched(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(FileExistsError, match='not made by this function and is left alone'):
        make_digit_scenes(tmp_path, 2, 2, 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_val=0), 'at least one scene'),
        (dict(digits_per_scene=(5, 3)), r'fewest <= most; got \(5, 3\)'),
        (dict(image_size=(160, 100)), 'half the shorter side'),
        (dict(clutter=-1), 'clutter must be 0 or more; got -1'),
    ],
)
def test_arguments_without_sense_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_digit_scenes(tmp_path / 'new', **arguments)
    assert not (tmp_path / 'new').exists()


def test_a_missing_scikit_learn_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match='pip install scikit-learn'):
        make_digit_scenes(tmp_path / 'new', **SMALL)
    assert not (tmp_path / 'new').exists()


def test_pycocotools_reads_it(digits):
    coco = pytest.importorskip('pycocotools.coco').COCO(str(digits / 'annotations/train.json'))
    assert len(coco.getImgIds()) == 6
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(DIGIT_CLASSES)
    assert len(coco.getAnnIds(imgIds=[1])) == len(boxes_of(annotations(digits), 1))


def test_the_dataset_config_feeds_mmdet(digits, monkeypatch):
    pytest.importorskip('mmdet')
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    monkeypatch.setenv('MMRKD_DATA', str(digits.parent))
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/digits.py')
    assert tuple(cfg.metainfo.classes) == DIGIT_CLASSES
    for split in SPLITS:
        sample = DATASETS.build(cfg[f'{split}_dataloader'].dataset)[0]
        content = annotations(digits, split)
        expected = [entry['category_id'] - 1 for entry in content['annotations'] if entry['image_id'] == 1]
        assert sample['data_samples'].gt_instances.labels.tolist() == expected
        assert sample['inputs'].shape == (3, 160, 160)


def test_the_tool_writes_the_set_once_and_reports_a_refusal(tmp_path, monkeypatch, capsys):
    def run(root):
        arguments = ['--root', str(root), '--num-train', '2', '--num-val', '2', '--num-test', '2']
        monkeypatch.setattr(sys, 'argv', ['make_digits.py', *arguments])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        runpy.run_path(str(ROOT / 'tools/make_digits.py'), run_name='__main__')
        return capsys.readouterr().out

    assert 'written to' in run(tmp_path / 'digits')
    assert 'already in' in run(tmp_path / 'digits')
    assert len(list((tmp_path / 'digits/images').rglob('*.png'))) == 6
    with pytest.raises(SystemExit, match='make_digits: .* holds no meta.json of the digit scenes'):
        run(tmp_path)
