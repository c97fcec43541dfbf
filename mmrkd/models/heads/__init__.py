"""Heads: the teacher's own as a judge, trainable copies, and what compares the outputs of two."""

from mmrkd.models.heads.copy_variant import CopyVariant
from mmrkd.models.heads.knowledge_bridge import KnowledgeBridge
from mmrkd.models.heads.output_mimicry import OutputMimicry, logit_divergence
from mmrkd.models.heads.peer import Peer, fit_grid
from mmrkd.models.heads.pruned_copy import pruned_copy
from mmrkd.models.heads.student_branches import Branch, StudentBranches
from mmrkd.models.heads.teacher_head import TeacherHead, sum_losses
from mmrkd.models.heads.teacher_statistics import TeacherStatistics

__all__ = [
    'Branch',
    'CopyVariant',
    'KnowledgeBridge',
    'OutputMimicry',
    'Peer',
    'StudentBranches',
    'TeacherHead',
    'TeacherStatistics',
    'fit_grid',
    'logit_divergence',
    'pruned_copy',
    'sum_losses',
]
