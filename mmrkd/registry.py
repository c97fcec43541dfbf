"""Registries of mmrkd: children of mmengine's, so that ``type='mmrkd.ERA'`` is found from any OpenMMLab config."""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmrkd', locations=['mmrkd.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmrkd', locations=['mmrkd.engine.hooks'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='mmrkd', locations=['mmrkd.engine.loops'])
OPTIM_WRAPPERS = Registry(
    'optim wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmrkd', locations=['mmrkd.engine.optim']
)
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope='mmrkd', locations=['mmrkd.engine.strategies'])
ADAPTERS = Registry(
    'adapter',
    scope='mmrkd',
    locations=[
        f'mmrkd.adapters.{room}' for room in ('detection', 'classification', 'retrieval', 'whole_classification')
    ],
)
