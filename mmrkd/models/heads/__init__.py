"""Heads: the teacher's own, as a judge of estimated features."""

from mmrkd.models.heads.teacher_head import TeacherHead

__all__ = ['TeacherHead']
