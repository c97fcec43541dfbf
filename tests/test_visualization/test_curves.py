import json

import pytest
from PIL import Image

from mmrkd.visualization import plot_curves, read_curve


def write_log(folder, name, records):
    path = folder / name / 'vis_data'
    path.mkdir(parents=True)
    (path / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))


def test_read_curve_joins_the_logs_of_a_resumed_run(tmp_path):
    write_log(tmp_path, '20260101_000000', [{'loss': 1.0, 'step': 10}, {'coco/bbox_mAP': 0.1, 'step': 1}])
    write_log(tmp_path, '20260101_000001', [{'coco/bbox_mAP': 0.2, 'step': 1}, {'coco/bbox_mAP': 0.3, 'step': 2}])
    assert read_curve(str(tmp_path)) == [(1, 0.2), (2, 0.3)]


def test_read_curve_names_what_is_missing(tmp_path):
    write_log(tmp_path, 'run', [{'loss': 1.0, 'step': 1}])
    with pytest.raises(ValueError, match='coco/bbox_mAP'):
        read_curve(str(tmp_path))


def test_plot_curves_draws_every_run(tmp_path):
    path = tmp_path / 'curves.png'
    plot_curves({'a': [(1, 0.1), (2, 0.2)]}, str(path))
    one = Image.open(path).convert('RGB')
    plot_curves({'a': [(1, 0.1), (2, 0.2)], 'b': [(1, 0.2), (2, 0.1)]}, str(path))
    two = Image.open(path).convert('RGB')
    orange = (255, 127, 14)  # the second colour of matplotlib's cycle
    assert orange not in set(one.getdata()) and orange in set(two.getdata())
