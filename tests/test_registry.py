from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, init_default_scope

import mmrkd
from mmrkd.registry import HOOKS, LOOPS, MODELS, OPTIM_WRAPPERS


def test_modules_are_found_from_any_scope():
    for scope in ('mmdet', 'mmpretrain', 'mmengine'):
        init_default_scope(scope)
        assert DefaultScope.get_current_instance().scope_name == scope
        assert ROOT.get('mmrkd.ERA') is mmrkd.models.ERA


def test_every_room_registers_under_the_scope():
    for registry, name in (
        (MODELS, 'Distiller'),
        (MODELS, 'MultiBranchResidualNeck'),
        (MODELS, 'TeacherHead'),
        (HOOKS, 'SplitCheckpointHook'),
        (LOOPS, 'VariantValLoop'),
        (OPTIM_WRAPPERS, 'AutocastOptimWrapper'),
    ):
        assert registry.scope == 'mmrkd' and name in registry.module_dict
