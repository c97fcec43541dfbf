"""Arguments that several commands take, readable without torch: ``mmrkd --help`` answers at once."""

import argparse
from typing import Any, Optional


class KeyValues(argparse.Action):
    """``KEY=VALUE ...``, read as mmengine's ``DictAction`` does, which is loaded only where something is given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Optional[str] = None
    ) -> None:
        """Adds the values to the dictionary that is there."""
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest, nargs='+')(parser, namespace, values, option)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='override settings of the config, such as train_cfg.max_epochs=6 model.methods.0.w_feat=0.5',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that training and testing have in common."""
    parser.add_argument('config', help='config file, or a name such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of CONFIG>)')
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started several processes (default: none, it is one)',
    )
    parser.add_argument('--allow-pickle', action='store_true', help='let checkpoints run code; only if you trust them')
    # torch.distributed.launch passes --local-rank; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_compose_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that make a distillation of a plain config."""
    group = parser.add_argument_group('distillation of a plain config')
    group.add_argument('--teacher', metavar='CONFIG', help="the teacher's config: a file, or a name such as mmdet::...")
    group.add_argument('--teacher-ckpt', metavar='FILE', help="the teacher's checkpoint: a file or an address")
    group.add_argument('--method', action='append', help='era, fitnets, ...; may be given several times')
    group.add_argument(
        '--init-student', metavar='PARTS', help="parts that start from the teacher's weights, such as neck,head"
    )


def add_ignore_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--ignore``."""
    parser.add_argument(
        '--ignore',
        action='append',
        default=[],
        metavar='FAULT',
        help='a fault to accept, by name; may be given several times',
    )
