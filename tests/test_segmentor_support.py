"""The support matrix of segmentors: every folder has a row or a reason, and samples of it are tried again."""

import json
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path

from mmrkd.support import NOT_SEGMENTORS, SEGMENTORS, render_segmentors, segmentor_names, try_segmentor
from mmrkd.support.segmentation import METHODS, small_segmentor
from mmrkd.support.trial import lighten, load_stock_config

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
PAGE = Path(__file__).resolve().parents[1] / 'docs/support_matrix_segmentation.md'


@pytest.fixture(scope='module')
def results():
    return json.loads(PAGE.with_suffix('.json').read_text())


def test_every_folder_is_accounted_for():
    configs = Path(get_installed_path('mmseg')) / '.mim/configs'
    folders = {path.name for path in configs.iterdir() if path.is_dir()} - {'__pycache__'}
    assert not folders - (SEGMENTORS.keys() | NOT_SEGMENTORS.keys()), 'neither a row nor a reason'
    assert not SEGMENTORS.keys() & NOT_SEGMENTORS.keys()
    missing = [n for n in segmentor_names() if not (configs / n.split('::')[1]).is_file()]
    assert not missing


def test_the_page_is_what_was_measured(results):
    assert PAGE.read_text() == render_segmentors(results)
    assert set(results) <= set(segmentor_names())
    assert all(f'- `{name}`' in PAGE.read_text() for name in segmentor_names() if name not in results)


def test_what_the_matrix_promises(results):
    """What cannot be says why."""
    assert results
    for name, row in results.items():
        assert row['methods'].keys() == METHODS.keys()
        for method, (status, remark) in row['methods'].items():
            assert status in ('works', 'n/a'), (name, method, remark)
            assert status == 'works' or remark, (name, method)


def test_a_row_is_still_true(results):
    name = 'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'
    init_default_scope('mmseg')
    assert try_segmentor(name) == results[name]


def test_a_small_variant_reads_what_the_small_backbone_gives():
    cfg = small_segmentor(lighten(load_stock_config(f'mmseg::fcn/{SEGMENTORS["fcn"][0]}.py')))
    assert cfg.backbone.depth == 18 and cfg.decode_head.in_channels == 512 and cfg.auxiliary_head.in_channels == 256
    cfg = small_segmentor(lighten(load_stock_config(f'mmseg::sem_fpn/{SEGMENTORS["sem_fpn"][0]}.py')))
    assert cfg.neck.in_channels == [64, 128, 256, 512] and cfg.decode_head.in_channels == [256] * 4
