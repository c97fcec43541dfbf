import torch

from mmrkd.models import FrozenTeacher
from mmrkd.models.heads import TeacherStatistics


def test_what_drifts_belongs_to_the_statistics_and_the_teacher_stays(wide_classifier):
    teacher = FrozenTeacher(**wide_classifier)
    before, own = teacher.fingerprint(), teacher.model.backbone.bn1.running_mean.clone()
    statistics = TeacherStatistics(teacher)
    assert torch.equal(statistics.backbone_bn1_running_mean, own)
    inputs = torch.rand(4, 3, 32, 32)
    still = teacher.extract(inputs)[-1]
    first, second = (teacher.extract(inputs, statistics)[-1] for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, still), 'normalised by the batch'
    assert not torch.equal(statistics.backbone_bn1_running_mean, own)
    assert statistics.backbone_bn1_num_batches_tracked == 2
    assert teacher.fingerprint() == before and torch.equal(teacher.extract(inputs)[-1], still)
    assert not list(statistics.parameters()) and len(statistics.state_dict()) == 3 * 20


def test_it_comes_back_with_the_state(wide_classifier):
    statistics = TeacherStatistics(FrozenTeacher(**wide_classifier))
    inputs = torch.rand(4, 3, 32, 32)
    statistics.teacher.extract(inputs, statistics)
    fresh = TeacherStatistics(FrozenTeacher(**wide_classifier))
    fresh.load_state_dict(statistics.state_dict())
    features = []
    for each in (statistics, fresh):
        with each.fixed():
            features.append(each.teacher.extract(inputs)[-1])
    assert torch.equal(*features)
    assert not torch.equal(features[0], fresh.teacher.extract(inputs)[-1])
    names = {k for k in fresh.teacher.model.state_dict() if 'running' in k or 'num_batches' in k}
    assert set(fresh.named_state()) == names


def test_an_error_inside_puts_everything_back(wide_classifier):
    teacher = FrozenTeacher(**wide_classifier)
    before, statistics = teacher.fingerprint(), TeacherStatistics(teacher)
    try:
        with statistics.drifting():
            raise KeyError
    except KeyError:
        pass
    assert teacher.fingerprint() == before and not any(m.training for m in teacher.model.modules())
    assert teacher.model.backbone.bn1.running_mean is not statistics.backbone_bn1_running_mean
