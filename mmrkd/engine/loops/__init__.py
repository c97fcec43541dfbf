"""Loops that evaluate every variant of a distiller."""

from mmrkd.engine.loops.variant_loops import VariantTestLoop, VariantValLoop

__all__ = ['VariantTestLoop', 'VariantValLoop']
