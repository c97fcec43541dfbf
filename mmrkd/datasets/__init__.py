"""Data sets that are made on the spot, for demos, tests and first steps."""

from .digit_scenes import DIGIT_CLASSES, digit_scene, make_digit_scenes

__all__ = ['DIGIT_CLASSES', 'digit_scene', 'make_digit_scenes']
