"""The version of mmrkd, readable without importing the package."""

__version__ = '0.1.0'
