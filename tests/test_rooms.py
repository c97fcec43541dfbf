"""Who may import whom: an arrow that runs back up fails."""

import ast
import os.path as osp
from pathlib import Path

import pytest

import mmrkd

PACKAGE = Path(mmrkd.__file__).parent
ROOT = PACKAGE.parent
LIBRARIES = ('mmdet', 'mmpretrain', 'mmseg', 'mmpose')
MAY_IMPORT_LIBRARIES = ('mmrkd.adapters', 'mmrkd.testing')

# What each room may import beside itself. A module belongs to the room with the longest name that fits.
GROUND = {
    f'mmrkd.{room}'
    for room in ('registry', 'structures', 'normalisation', 'checkpoint', 'stack', 'version', 'arguments')
}
PARTS = {f'mmrkd.models.{room}' for room in ('necks', 'backbones', 'losses')}
ROOMS = (
    'class_map',
    'heads',
    'gradient_shares',
    'balance',
    'input_converter',
    'teacher',
    'pair',
    'variants',
    'methods',
    'inheritance',
    'loss_guard',
)
ROOMS += ('state_names', 'method_state', 'attendance', 'views_preprocessor', 'step', 'building', 'distiller')
MODELS = PARTS | {f'mmrkd.models.{room}' for room in ROOMS}
BESIDE = {'mmrkd.adapters', 'mmrkd.models.teacher', 'mmrkd.models.pair', 'mmrkd.models.variants'}
BELOW = GROUND | MODELS | {'mmrkd.adapters', 'mmrkd.models'}  # what export, engine and doctor stand on
ALLOWED = {
    **{room: GROUND - {room} for room in GROUND},
    'mmrkd.datasets': set(),
    'mmrkd.diagnosis': set(),
    'mmrkd.adapters': GROUND,
    **{room: GROUND | (PARTS - {room}) for room in PARTS},
    'mmrkd.models.input_converter': GROUND,
    'mmrkd.models.class_map': set(),
    'mmrkd.models.teacher': GROUND | {'mmrkd.adapters', 'mmrkd.models.class_map'},
    'mmrkd.models.pair': GROUND | {'mmrkd.adapters', 'mmrkd.models.input_converter', 'mmrkd.models.teacher'},
    'mmrkd.models.variants': GROUND | {'mmrkd.adapters', 'mmrkd.models.pair'},
    'mmrkd.models.heads': GROUND | PARTS | BESIDE | {'mmrkd.models.input_converter'},
    'mmrkd.models.gradient_shares': {'mmrkd.models.heads'},
    'mmrkd.models.balance': {'mmrkd.models.gradient_shares'},
    'mmrkd.models.methods': GROUND
    | PARTS
    | BESIDE
    | {
        'mmrkd.models.heads',
        'mmrkd.models.balance',
        'mmrkd.models.inheritance',
    },
    'mmrkd.models.method_state': GROUND | {'mmrkd.models.methods', 'mmrkd.models.state_names'},
    'mmrkd.models.attendance': set(),
    'mmrkd.models.building': GROUND | {'mmrkd.models.methods', 'mmrkd.models.teacher'},
    'mmrkd.models.views_preprocessor': set(),
    'mmrkd.models.step': GROUND
    | {f'mmrkd.{room}' for room in ('adapters', 'models.methods', 'models.pair', 'models.views_preprocessor')},
    'mmrkd.models.loss_guard': set(),
    'mmrkd.models.state_names': set(),
    'mmrkd.models.inheritance': GROUND,
    'mmrkd.models.distiller': GROUND
    | BESIDE
    | {f'mmrkd.models.{room}' for room in ('methods', 'inheritance', 'loss_guard', 'state_names')}
    | {f'mmrkd.models.{room}' for room in ('attendance', 'balance', 'views_preprocessor', 'step', 'building')},
    'mmrkd.models': MODELS,
    'mmrkd.plain_config': GROUND | {'mmrkd.models.teacher'},
    'mmrkd.export': BELOW | {'mmrkd.plain_config'},
    'mmrkd.engine': BELOW | {'mmrkd.export', 'mmrkd.plain_config', 'mmrkd.diagnosis', 'mmrkd.visualization'},
    'mmrkd.onnx_file': BELOW,
    'mmrkd.visualization': BELOW,
    'mmrkd.demo': BELOW | {'mmrkd.visualization', 'mmrkd.datasets'},
    'mmrkd.report_page': {'mmrkd.diagnosis'},
    'mmrkd.report': BELOW
    | {f'mmrkd.{room}' for room in ('export', 'engine', 'visualization', 'diagnosis', 'plain_config', 'report_page')},
    'mmrkd.doctor': BELOW | {'mmrkd.export', 'mmrkd.engine'},
    'mmrkd.runner': BELOW | {'mmrkd.engine', 'mmrkd.doctor', 'mmrkd.plain_config'},
    'mmrkd.commands': BELOW
    | {f'mmrkd.{room}' for room in ('plain_config', 'export', 'onnx_file', 'engine', 'doctor', 'runner')}
    | {f'mmrkd.{room}' for room in ('report', 'datasets', 'demo')},
    'mmrkd.__main__': {'mmrkd.commands'},
    'mmrkd.testing': BELOW,
    'mmrkd.support': BELOW | {'mmrkd.testing'},
    'mmrkd': {'mmrkd.stack', 'mmrkd.version', 'mmrkd.engine', 'mmrkd.models', 'mmrkd.datasets', 'mmrkd.runner'},
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def room_of(module):
    """The room of a module, or of something that is imported from one."""
    parts = module.split('.')
    for length in range(len(parts), 0, -1):
        name = '.'.join(parts[:length])
        if name in ALLOWED:
            # The package file itself is a room; what lies in it must be a room of its own or be inside one.
            return name if length == len(parts) or name not in ('mmrkd', 'mmrkd.models') else None
    return None


def imports(source, module, is_package=False):
    """Every absolute name that a source imports, lazily or not, ``(line, name)``."""
    package = module.split('.') if is_package else module.split('.')[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join([*package[: len(package) + 1 - node.level], node.module or '']).strip('.')
            base = base if node.level else node.module
            for alias in node.names:
                submodule = ROOT.joinpath(*base.split('.'), alias.name)
                is_module = submodule.is_dir() or submodule.with_suffix('.py').is_file()
                yield node.lineno, f'{base}.{alias.name}' if is_module else base


def faults(source, module, is_package=False):
    """Sentences about imports that run the wrong way."""
    room = room_of(module)
    found = []
    for line, name in imports(source, module, is_package):
        top = name.split('.')[0]
        if top in LIBRARIES and not module.startswith(MAY_IMPORT_LIBRARIES):
            found.append(f'{module}:{line} imports {name}: only {" and ".join(MAY_IMPORT_LIBRARIES)} may')
        elif top == 'mmrkd' and room != room_of(name) and room_of(name) not in ALLOWED[room]:
            found.append(f'{module}:{line} imports {name}: {room} may import only {sorted(ALLOWED[room])}')
    return found


FILES = sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=module_name)
def test_imports_run_down(path):
    module = module_name(path)
    assert room_of(module) is not None, f'{module} is in no room: give it a place in the table of this test'
    assert not faults(path.read_text(), module, path.name == '__init__.py')


def test_tools_are_at_the_top():
    for path in FILES:
        names = [name.split('.')[0] for _, name in imports(path.read_text(), module_name(path))]
        assert not {'tools', 'tests', 'configs'} & set(names), path


@pytest.mark.parametrize(
    'module, source',
    [
        ('mmrkd.models.necks.some_neck', 'from mmrkd.adapters import build_adapter'),
        ('mmrkd.models.necks.some_neck', 'from mmrkd.models.teacher import FrozenTeacher'),
        ('mmrkd.models.losses.modules', 'from mmrkd.models.methods.base import Pair'),
        ('mmrkd.models.backbones.some_backbone', 'def f():\n    import mmrkd.models.methods'),
        ('mmrkd.models.methods.era', 'from mmrkd.models.distiller import Distiller'),
        ('mmrkd.models.methods.era', 'from mmrkd.models import distiller'),
        ('mmrkd.models.methods.era', 'from mmrkd.models import Distiller'),
        ('mmrkd.models.methods.era', 'from ..distiller import Distiller'),
        ('mmrkd.models.methods.era', 'def f():\n    from mmdet.models import RetinaNet'),
        ('mmrkd.models.methods.era', 'import mmpretrain.models as models'),
        ('mmrkd.models.heads.teacher_head', 'from mmrkd.models.methods import ERA'),
        ('mmrkd.models.distiller', 'from mmrkd.engine.hooks import ClassCheckHook'),
        ('mmrkd.models.teacher', 'import mmrkd.engine'),
        ('mmrkd.models.teacher', 'import mmrkd'),
        ('mmrkd.adapters.base', 'from mmrkd.models.teacher import FrozenTeacher'),
        ('mmrkd.registry', 'from mmrkd.models.necks import MultiBranchResidualNeck'),
        ('mmrkd.structures', 'import mmrkd.adapters.base'),
        ('mmrkd.engine.prepare', 'from mmdet.registry import MODELS'),
        ('mmrkd.export', 'from mmrkd.engine.launch import load_config'),
        ('mmrkd.engine.launch', 'import mmrkd.doctor'),
        ('mmrkd.engine.launch', 'from mmrkd.testing import tiny_retinanet'),
        ('mmrkd.engine.launch', 'from mmrkd.runner import Runner'),
        ('mmrkd.doctor.check_hook', 'import mmrkd.runner'),
        ('mmrkd.plain_config', 'from mmrkd.export import export'),
        ('mmrkd.diagnosis', 'from mmrkd.engine.metrics import main_metric'),
        ('mmrkd.models.methods.era', 'from mmrkd.diagnosis import Facts'),
    ],
)
def test_an_arrow_that_runs_up_is_found(module, source):
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    'module, source',
    [
        ('mmrkd.adapters.detection', 'from mmdet.models import RetinaNet'),
        ('mmrkd.models.heads.teacher_head', 'from mmrkd.models.teacher import FrozenTeacher'),
        ('mmrkd.models.methods.era', 'from ..necks.multi_branch_residual_neck import MultiBranchResidualNeck'),
        ('mmrkd.models.methods.era', 'from .base import DistillMethod'),
        ('mmrkd.models.methods.era', 'from torch import nn\nfrom mmrkd.structures import Level'),
        ('mmrkd.engine.launch', 'from mmrkd.models import Distiller'),
    ],
)
def test_arrows_that_run_down_are_fine(module, source):
    assert faults(source, module) == []


def test_libraries_are_imported_when_a_model_of_theirs_arrives():
    """One of them may be absent: no module of the package imports them while it is itself imported."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        eager = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        source = '\n'.join(ast.unparse(node) for node in eager)
        names = {name.split('.')[0] for _, name in imports(source, module_name(path), path.name == '__init__.py')}
        assert not names & set(LIBRARIES), osp.relpath(path, ROOT)


def test_nothing_that_is_installed_imports_what_only_the_tests_need():
    for path in FILES:
        module = module_name(path)
        if not module.startswith(('mmrkd.testing', 'mmrkd.support')):
            names = [name for _, name in imports(path.read_text(), module, path.name == '__init__.py')]
            assert not [name for name in names if name.startswith(('mmrkd.testing', 'mmrkd.support'))], module
