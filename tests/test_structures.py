import pytest
import torch

from mmrkd.structures import Level, TeacherView, match_levels


def levels(*strides, channels=16):
    return [Level(channels, stride) for stride in strides]


def test_levels_are_matched_by_stride_and_not_by_position():
    match = match_levels(levels(8, 16, 32, channels=4), levels(4, 8, 16, 32, 64, channels=6))
    assert match.pairs == ((0, 1), (1, 2), (2, 3))
    assert match.student_channels == [4, 4, 4]
    assert match.teacher_channels == [6, 6, 6]
    assert not match.covers_teacher
    assert not match.pooled


def test_levels_that_only_the_student_has_are_left_out():
    student = [Level(1, 4), Level(2, 8), Level(3, 16), Level(4, 32)]
    match = match_levels(student, [Level(10, 16), Level(20, 32)])
    assert match.pairs == ((2, 0), (3, 1))
    assert match.student_channels == [3, 4]
    assert match.teacher_channels == [10, 20]
    assert match.covers_teacher


def test_pooled_features_match_each_other():
    match = match_levels([Level(64, None)], [Level(128, None)])
    assert match.pairs == ((0, 0),)
    assert match.pooled and match.covers_teacher


@pytest.mark.parametrize(
    'student, teacher, pairs',
    [((8, 8), (8,), ((0, 0),)), ((8,), (8, 8), ((0, 0),)), ((8, 8), (8, 8), ((0, 0),))],
)
def test_a_teacher_level_is_used_once(student, teacher, pairs):
    assert match_levels(levels(*student), levels(*teacher)).pairs == pairs


def test_no_common_stride_lists_both_sides():
    with pytest.raises(ValueError) as error:
        match_levels([Level(8, 4)], [Level(16, 8), Level(32, None)])
    message = str(error.value)
    assert 'the student has [stride 4, 8ch]' in message
    assert 'the teacher has [stride 8, 16ch; pooled, 32 channels]' in message
    assert 'start_level' in message


def test_a_pooled_student_does_not_match_a_map_of_the_teacher():
    with pytest.raises(ValueError, match='pooled, 64 channels'):
        match_levels([Level(64, None)], [Level(64, 32)])


def test_outputs_of_the_teacher_are_computed_once_and_only_when_asked_for():
    calls = []

    def compute():
        calls.append(1)
        return torch.ones(2)

    view = TeacherView(torch.zeros(1), (), (), compute)
    assert not calls
    assert view.outputs is view.outputs
    assert len(calls) == 1
