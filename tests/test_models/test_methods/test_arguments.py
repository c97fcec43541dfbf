import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, Union

import pytest
from mmengine.config import Config

from mmrkd.models import Distiller
from mmrkd.models.methods import ERA, PKD, AttentionTransfer, FitNets, ResidualKD, SemiOnlineKD
from mmrkd.models.methods.arguments import check_arguments, without_auto
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.registry import MODELS

if TYPE_CHECKING:
    from nowhere import Unknown

ROOT = Path(__file__).resolve().parents[3]


class Method:
    def __init__(
        self,
        number: float = 1.0,
        count: int = 2,
        flag: bool = False,
        text: str = 'a',
        maybe: Optional[float] = None,
        weight: Union[float, str] = 1.0,
        numbers: Optional[Sequence[float]] = None,
        size: tuple[int, int] = (1, 2),
        layers: Union[str, Sequence[int]] = 'all',
        loss: Optional[dict] = None,
        table: Optional[Mapping[str, float]] = None,
        mode: Literal['a', 'b'] = 'a',
        function: Optional[Callable] = None,
        anything: Any = None,
        implicit: bool = None,
        bare=None,
    ) -> None:
        pass


class Sub(Method):
    def __init__(self, own: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Open:
    def __init__(self, own: int = 1, **kwargs: Any) -> None:
        pass


class Unresolved:
    def __init__(self, other: 'Unknown' = None, number: float = 1.0) -> None:
        pass


@pytest.mark.parametrize(
    'arguments',
    [
        dict(number=1, count=3, flag=True, text='', maybe=2.5, weight='auto'),
        dict(number=float('nan'), maybe=None, weight=0, numbers=[1, 2.5], size=[3, 4], layers=[1, 2]),
        dict(numbers=()),
        dict(
            layers='last', loss=dict(type='L1'), table={'a': 1}, mode='b', function=print, anything='x', implicit=None
        ),
        dict(bare='x', implicit=True, size=(1, 2), type='Method', _scope_='mmrkd'),
        dict(name='mine', teacher='other', teachers=['a', 'b'], balance=0.1),
    ],
)
def test_what_fits(arguments):
    check_arguments(Method, arguments)
    check_arguments(Sub, dict(arguments, own=4))


@pytest.mark.parametrize(
    'argument, message',
    [
        (dict(number='0.5'), "number='0.5': expected a number, found a text: write the number without quotes"),
        (dict(number=True), 'number=True: expected a number, found a bool'),
        (dict(number=None), 'number=None: expected a number, found a NoneType'),
        (dict(number=[1.0]), r'number=\[1.0\]: expected a number, found a list'),
        (dict(count=2.0), 'count=2.0: expected a whole number, found a float'),
        (dict(count=True), 'count=True: expected a whole number, found a bool'),
        (dict(flag=1), 'flag=1: expected True or False, found a int'),
        (dict(flag='True'), "flag='True': expected True or False, found a text$"),
        (dict(text=3), 'text=3: expected a text, found a int'),
        (dict(maybe='x'), "maybe='x': expected a number or None, found a text$"),
        (dict(weight=[1]), r'weight=\[1\]: expected a number or a text, found a list'),
        (dict(numbers='12'), "numbers='12': expected a list, each a number or None, found a text"),
        (dict(numbers=[1, '2']), 'numbers=.*: expected a list, each a number or None, found a list'),
        (dict(numbers=1.0), 'numbers=1.0: expected a list, each a number or None'),
        (dict(size=(1, 2, 3)), r'size=\(1, 2, 3\): expected a list, each a whole number, found a tuple'),
        (dict(layers=[1.5]), r'layers=\[1.5\]: expected a text or a list, each a whole number'),
        (dict(loss='L1'), "loss='L1': expected a dict or None, found a text"),
        (dict(table=[1]), r'table=\[1\]: expected a dict or None'),
        (dict(mode='c'), r"mode='c': expected one of \('a', 'b'\)"),
        (dict(implicit='yes'), "implicit='yes': expected True or False"),
        (dict(nubmer=1.0), "Method: there is no argument 'nubmer'. Did you mean 'number'?"),
        (dict(teachr='x'), "there is no argument 'teachr'. Did you mean 'teacher'?"),
        (dict(zzz=1), "there is no argument 'zzz'. There are: anything, balance, bare"),
    ],
)
def test_what_does_not_fit(argument, message):
    for cls in (Method, Sub):
        with pytest.raises(TypeError, match=message.replace('Method', cls.__name__)):
            check_arguments(cls, argument)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(TypeError, match=r"^Method: number='x': .*; flag=2: .*; there is no argument 'cuont'. Did you"):
        check_arguments(Method, dict(number='x', flag=2, cuont=1))


class Weighted(Method):
    weights = {'number': 'loss_*', 'maybe': 'loss_maybe', 'elsewhere': 'loss_else'}


def test_auto_stands_for_the_weights_that_a_method_declares_and_for_nothing_else():
    check_arguments(Weighted, dict(number='auto', maybe='auto'))
    for wrong in (dict(count='auto'), dict(numbers='auto'), dict(number='Auto'), dict(number=['auto'])):
        with pytest.raises(TypeError, match=f'^Weighted: {next(iter(wrong))}='):
            check_arguments(Weighted, wrong)
    with pytest.raises(TypeError, match="there is no argument 'elsewhere'"):
        check_arguments(Weighted, dict(elsewhere='auto'))
    with pytest.raises(TypeError, match="^Method: number='auto': expected a number"):
        check_arguments(Method, dict(number='auto'))


def test_a_number_takes_the_place_of_auto():
    cfg = dict(number='auto', maybe='auto', text='auto', count=7)
    assert without_auto(Weighted, cfg) == dict(number=1.0, maybe=1.0, text='auto', count=7)
    assert without_auto(PKD, dict(type='PKD', w_pkd='auto')) == dict(type='PKD', w_pkd=10.0)
    assert cfg['number'] == 'auto'


def test_what_is_not_known_passes():
    check_arguments(Open, dict(whatever=1))
    check_arguments(Unresolved, dict(other=1, number='x'))
    with pytest.raises(TypeError, match='own='):
        check_arguments(Open, dict(own='x'))


@pytest.mark.parametrize(
    'cls, argument, name',
    [
        (FitNets, dict(w_feat='0.5'), 'w_feat'),
        (FitNets, dict(standardize='yes'), 'standardize'),
        (ERA, dict(num_branches=2.5), 'num_branches'),
        (ERA, dict(branch_weights=1.0), 'branch_weights'),
        (ERA, dict(neck='GN'), 'neck'),
        (SemiOnlineKD, dict(feature_loss='FeatureMSELoss'), 'feature_loss'),
        (AttentionTransfer, dict(student_layers='backbone'), 'student_layers'),
        (ResidualKD, dict(phase_epochs=5), 'phase_epochs'),
        (ResidualKD, dict(stages=3), 'stages'),
    ],
)
def test_methods(cls, argument, name):
    with pytest.raises(TypeError, match=f'{cls.__name__}: {name}='):
        check_arguments(cls, argument)


def test_the_distiller_and_its_teacher():
    with pytest.raises(TypeError, match="Distiller: there is no argument 'method'. Did you mean 'methods'?"):
        check_arguments(Distiller, dict(student={}, teacher={}, method=[]), shared=())
    with pytest.raises(TypeError, match="FrozenTeacher: there is no argument 'chkpt'. Did you mean 'ckpt'?"):
        check_arguments(FrozenTeacher, dict(cfg='a.py', chkpt='a.pth'), shared=())
    check_arguments(Distiller, dict(student='a.py', teacher=dict(cfg='b.py'), methods=[], resize=None), shared=())


EXTRAS = dict(mmseg=('_nuclei', '_cityscapes'), mmpose=('_beepose', '_coco-keypoints'))
ABSENT = tuple(end for library, ends in EXTRAS.items() if importlib.util.find_spec(library) is None for end in ends)
CONFIGS = [path for path in sorted(ROOT.glob('configs/*/*.py')) if '_base_' not in path.parts]
CONFIGS = [path for path in CONFIGS if not path.stem.endswith(ABSENT)]


@pytest.mark.parametrize('path', CONFIGS[::3], ids=lambda path: path.stem)  # the others are built elsewhere
def test_shipped_configs_pass(path):
    model = Config.fromfile(path).model
    methods = model.get('methods', ())
    check_arguments(Distiller, model if methods else {}, shared=())
    for method in methods:
        check_arguments(MODELS.get(method.type), method)
