"""Names while saving and loading; what a distiller and its checkpoints make of them is in their own tests."""

from collections import OrderedDict

import pytest

from mmrkd.models.state_names import FSDP_PREFIX, rename_on_load, rename_on_save

SAVED = ['methods.0.neck.weight', 'student.backbone.weight', 'student.head.bias']
PLAIN = ['backbone.weight', 'head.bias', 'methods.0.neck.weight']


def state(names, prefix=''):
    return OrderedDict((prefix + name, number) for number, name in enumerate(names))


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_the_student_is_plain_and_first(prefix):
    saved = state(SAVED, prefix)
    rename_on_save(None, saved, prefix, None)
    assert list(saved.items()) == [(prefix + name, number) for name, number in zip(PLAIN, (1, 2, 0))]


def test_versions_of_modules_are_renamed_too():
    saved = state(SAVED)
    saved._metadata = {'': dict(version=1), 'student.backbone': dict(version=2), 'methods.0': dict(version=3)}
    rename_on_save(None, saved, '', None)
    assert saved._metadata == {'': dict(version=1), 'backbone': dict(version=2), 'methods.0': dict(version=3)}


def test_names_that_fsdp_still_looks_for_stay():
    saved = state(SAVED, FSDP_PREFIX)
    rename_on_save(None, saved, FSDP_PREFIX, None)
    assert saved == state(SAVED, FSDP_PREFIX)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('names', [PLAIN, SAVED])
def test_loading_finds_both_forms_and_leaves_what_lies_beside(prefix, names):
    loaded = {**state(names, prefix), **({'steps': 7} if prefix else {})}
    rename_on_load(loaded, prefix)
    numbers = dict(zip(names, range(3)))
    expected = {prefix + name: numbers[name if name in numbers else name[len('student.') :]] for name in SAVED}
    assert loaded == {**expected, **({'steps': 7} if prefix else {})}
