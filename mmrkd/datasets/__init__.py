"""Data sets that are made on the spot, for demos, tests and first steps."""

from .digit_scenes import DIGIT_CLASSES, make_digit_scenes

__all__ = ['DIGIT_CLASSES', 'make_digit_scenes']
