"""Heads: the teacher's own as a judge, a trainable copy of its upper part, and what compares the outputs of two."""

from mmrkd.models.heads.knowledge_bridge import KnowledgeBridge
from mmrkd.models.heads.output_mimicry import OutputMimicry
from mmrkd.models.heads.teacher_head import TeacherHead, sum_losses
from mmrkd.models.heads.teacher_statistics import TeacherStatistics

__all__ = ['KnowledgeBridge', 'OutputMimicry', 'TeacherHead', 'TeacherStatistics', 'sum_losses']
