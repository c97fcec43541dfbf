import pytest
import torch

from mmrkd.structures import Level, TeacherView, match_levels, resized


def levels(*strides, channels=16):
    return [Level(channels, stride) for stride in strides]


def test_levels_are_matched_by_stride_and_not_by_position():
    match = match_levels(levels(8, 16, 32, channels=4), levels(4, 8, 16, 32, 64, channels=6))
    assert match.pairs == ((0, 1), (1, 2), (2, 3))
    assert match.student_channels == [4, 4, 4]
    assert match.teacher_channels == [6, 6, 6]
    assert not match.covers_teacher
    assert not match.vectors


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
    assert match.vectors and match.covers_teacher


@pytest.mark.parametrize(
    'student, teacher, pairs',
    [((8, 8), (8,), ((0, 0),)), ((8,), (8, 8), ((0, 0),)), ((8, 8), (8, 8), ((0, 0), (1, 1)))],
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


def test_levels_without_a_common_stride_are_matched_by_the_nearest_where_resizing_is_allowed():
    match = match_levels(levels(4), levels(8, 16, 32), resize='bilinear')
    assert match.pairs == ((0, 0),) and match.resize == 'bilinear' and not match.same_strides
    match = match_levels(levels(12, 24, 48), levels(16, 64), resize='nearest')
    assert match.pairs == ((0, 0), (2, 1))  # 12 - 16 and 48 - 64 are 0.42 octaves apart, 24 - 16 is 0.58
    assert match_levels(levels(8, 16), levels(16, 32), resize='area').pairs == ((1, 0),)  # a common stride comes first


def test_resizing_cannot_match_a_vector_with_a_map():
    with pytest.raises(ValueError, match='no feature level'):
        match_levels([Level(64, None)], [Level(64, 32)], resize='bilinear')


def test_an_unknown_way_of_resizing_is_refused():
    with pytest.raises(ValueError, match="one of .*'bilinear'.*found 'cubic'"):
        match_levels(levels(8), levels(8), resize='cubic')


def test_maps_are_resized_only_if_asked_for():
    feature, like = torch.arange(4.0).view(1, 1, 2, 2), torch.zeros(1, 7, 4, 4)
    assert resized(feature, feature, None) is feature
    assert torch.equal(resized(feature, like, 'nearest')[0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert resized(like, feature, 'area').shape == (1, 7, 2, 2)
    assert resized(feature, like, 'bilinear')[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(4, 4\) cells.*resize='bilinear'"):
        resized(feature, like, None)


def test_outputs_of_the_teacher_are_computed_once_and_only_when_asked_for():
    calls = []

    def compute():
        calls.append(1)
        return torch.ones(2)

    view = TeacherView(torch.zeros(1), (), (), compute)
    assert not calls
    assert view.outputs is view.outputs
    assert len(calls) == 1
