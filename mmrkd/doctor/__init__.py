"""Finds out, before a training, what is wrong with a distillation, and gives it a name."""

from mmrkd.doctor.check_hook import CheckHook, train_checked
from mmrkd.doctor.examination import examine
from mmrkd.doctor.faults import FAULTS
from mmrkd.doctor.report import Fault, FaultError, Report

__all__ = ['FAULTS', 'CheckHook', 'Fault', 'FaultError', 'Report', 'examine', 'train_checked']
