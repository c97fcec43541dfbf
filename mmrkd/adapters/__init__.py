"""The only rooms that know mmdet or mmpretrain; each imports its library when a model of it arrives."""

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.finding import build_adapter, find_adapter

__all__ = ['ModelAdapter', 'build_adapter', 'find_adapter']
