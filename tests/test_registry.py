import pytest
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.registry import MODELS as ROOT
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import DefaultScope, init_default_scope

import mmrkd
from mmrkd.engine import SplitCheckpointHook
from mmrkd.registry import HOOKS, LOOPS, MODELS, OPTIM_WRAPPERS, RUNNERS, is_ours, type_name, type_names


def test_modules_are_found_from_any_scope():
    for scope in ('mmdet', 'mmpretrain', 'mmengine'):
        init_default_scope(scope)
        assert DefaultScope.get_current_instance().scope_name == scope
        assert ROOT.get('mmrkd.ERA') is mmrkd.models.ERA
        assert ROOT_RUNNERS.get('mmrkd.Runner') is mmrkd.Runner


def test_every_room_registers_under_the_scope():
    for registry, name in (
        (MODELS, 'Distiller'),
        (MODELS, 'MultiBranchResidualNeck'),
        (MODELS, 'TeacherHead'),
        (HOOKS, 'SplitCheckpointHook'),
        (LOOPS, 'VariantValLoop'),
        (OPTIM_WRAPPERS, 'AutocastOptimWrapper'),
        (RUNNERS, 'Runner'),
    ):
        assert registry.scope == 'mmrkd' and name in registry.module_dict


SPLIT = 'mmrkd.SplitCheckpointHook'


@pytest.mark.parametrize(
    'written, expected',
    [
        (dict(type=SPLIT), SPLIT),
        (SPLIT, SPLIT),
        (dict(type='SplitCheckpointHook', _scope_='mmrkd'), SPLIT),
        (dict(type='mmrkd.engine.hooks.checkpoint_hooks.SplitCheckpointHook'), SPLIT),
        (dict(type='mmrkd.engine.SplitCheckpointHook'), SPLIT),
        (dict(type=SplitCheckpointHook), SPLIT),
        (SplitCheckpointHook, SPLIT),
        (SplitCheckpointHook(), SPLIT),
        (dict(type='Distiller', _scope_='mmrkd'), 'mmrkd.Distiller'),
        ('CheckpointHook', 'CheckpointHook'),
        ('mmengine.CheckpointHook', 'CheckpointHook'),
        ('mmengine.hooks.checkpoint_hook.CheckpointHook', 'CheckpointHook'),
        (dict(type=CheckpointHook), 'CheckpointHook'),
        (dict(type='CheckpointHook', _scope_='mmengine'), 'CheckpointHook'),
        (dict(type='CheckpointHook', _scope_='mmrkd'), 'CheckpointHook'),  # as the registry finds it
        ('my.hooks.CheckpointHook', 'my.CheckpointHook'),
        (dict(type='mmdet.RetinaNet'), 'mmdet.RetinaNet'),
        (dict(type='FSDPStrategy'), 'FSDPStrategy'),
        (dict(by_epoch=True), ''),
        (None, ''),
    ],
)
def test_a_type_has_one_name_however_it_is_written(written, expected):
    assert type_name(written) == expected
    if isinstance(written, dict):
        assert type_name(ConfigDict(written)) == expected


def test_what_a_pure_python_config_names(tmp_path):
    """Before and after it is written out by mmengine."""
    (tmp_path / 'cfg.py').write_text(
        'from mmengine.hooks import CheckpointHook\nfrom mmrkd.engine.hooks import SplitCheckpointHook\n'
        'custom_hooks = [dict(type=SplitCheckpointHook), dict(type=CheckpointHook)]\n'
    )
    cfg = Config.fromfile(tmp_path / 'cfg.py')
    cfg.dump(tmp_path / 'written.py')
    for path in ('cfg.py', 'written.py'):
        hooks = Config.fromfile(tmp_path / path).custom_hooks
        assert [type_name(hook) for hook in hooks] == [SPLIT, 'CheckpointHook'], path


def test_bases_are_known_where_the_class_is():
    class Mine(SplitCheckpointHook):
        pass

    assert type_name(Mine) == 'test_registry.Mine'
    assert SPLIT in type_names(Mine) and SPLIT in type_names(dict(type=Mine)) and SPLIT in type_names(Mine())
    assert is_ours(Mine) and is_ours('mmrkd.ERA') and not is_ours('my.ERA') and not is_ours(CheckpointHook)
    assert type_names('my.Mine') == ('my.Mine',)
