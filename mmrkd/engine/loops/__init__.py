"""Loops that continue exactly, and loops that evaluate every variant of a distiller."""

from mmrkd.engine.loops.resumable_loops import ResumableEpochLoop, ResumableIterLoop
from mmrkd.engine.loops.variant_loops import VariantTestLoop, VariantValLoop

__all__ = ['ResumableEpochLoop', 'ResumableIterLoop', 'VariantTestLoop', 'VariantValLoop']
