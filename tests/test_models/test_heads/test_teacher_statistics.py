import torch

from mmrkd.models import FrozenTeacher
from mmrkd.models.heads import TeacherStatistics


def test_what_drifted_is_kept_and_comes_back_with_the_state(wide_classifier):
    drifting = FrozenTeacher(**wide_classifier)
    before = drifting.fingerprint()
    drifting.batch_statistics = True
    statistics = TeacherStatistics(drifting)
    drifting.extract(torch.rand(4, 3, 32, 32))
    after = drifting.fingerprint()
    norm = drifting.model.backbone.bn1
    assert not torch.equal(statistics.backbone_bn1_running_mean, norm.running_mean)
    statistics.keep()
    assert torch.equal(statistics.backbone_bn1_running_mean, norm.running_mean)
    assert not list(statistics.parameters()) and len(statistics.state_dict()) == 3 * 20

    fresh = FrozenTeacher(**wide_classifier)
    assert fresh.fingerprint() == before != after
    TeacherStatistics(fresh).load_state_dict(statistics.state_dict())
    assert fresh.fingerprint() == after
