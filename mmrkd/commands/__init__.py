"""The command ``mmrkd``: one file a subcommand. Torch is loaded when one is run, and not to show its help.

A file has a docstring (its first line is the summary, the rest the examples), ``add_arguments(parser)`` and
``run(args)``.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Optional

from mmrkd.version import __version__

COMMANDS = ('quickstart', 'demo', 'check', 'train', 'test', 'export', 'separate', 'report', 'benchmark', 'env')
DESCRIPTION = """Distil a detector of mmdet or a classifier of mmpretrain.

`mmrkd COMMAND --help` shows the arguments of a command and examples. With a config that works and a bigger trained
model:
  mmrkd check CONFIG --teacher TEACHER_CONFIG --teacher-ckpt TEACHER.pth --method era
  mmrkd train CONFIG --teacher TEACHER_CONFIG --teacher-ckpt TEACHER.pth --method era
Without either, `mmrkd quickstart` makes its own data and trains everything in a few minutes, and `mmrkd demo` shows a
detector that was trained so."""


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Runs the command line.

    Args:
        arguments: What stands behind ``mmrkd``. Defaults to that of this process.
    """
    args = build_parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    _run(importlib.import_module(f'mmrkd.commands.{args.command}'), args)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of ``mmrkd`` with all its commands."""
    parser = argparse.ArgumentParser('mmrkd', description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--version', action='version', version=f'mmrkd {__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        module = importlib.import_module(f'mmrkd.commands.{name}')
        summary, examples = _texts(module)
        own = commands.add_parser(name, help=summary, description=summary, epilog=examples, formatter_class=_Formatter)
        module.add_arguments(own)
    return parser


def run_tool(name: str) -> None:
    """Runs one command under the name of a script in ``tools/``, with the arguments of this process."""
    module = importlib.import_module(f'mmrkd.commands.{name}')
    summary, examples = _texts(module)
    parser = argparse.ArgumentParser(description=summary, epilog=examples, formatter_class=_Formatter)
    module.add_arguments(parser)
    _run(module, parser.parse_args())


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples."""


def _texts(module: ModuleType) -> tuple[str, str]:
    summary, _, examples = (module.__doc__ or '').partition('\n')
    return summary, examples.strip()


def _run(module: ModuleType, args: argparse.Namespace) -> None:
    from mmrkd.engine.launch import report_errors

    report_errors(lambda: module.run(args))()
