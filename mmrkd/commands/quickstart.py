"""Run the main job on embedded data: teacher, student alone, student with ERA, then a table and two pictures.

It needs no download (the digits come with scikit-learn) and runs on two CPU cores. Run again, it goes on where it was.

Examples:
  mmrkd quickstart
  mmrkd quickstart --out somewhere --cfg-options train_cfg.max_epochs=2
"""

import argparse
import os
import os.path as osp
import re
import subprocess
import sys
import time

RUNS = {
    'teacher': 'mmrkd::baselines/retinanet-r18w32_1xb8-8e_digits.py',
    'student': 'mmrkd::baselines/retinanet-r18w8_1xb8-8e_digits.py',
    'student with ERA': 'mmrkd::era/era_retinanet-r18w32_retinanet-r18w8_1xb8-8e_digits.py',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument('--out', default=osp.join('work_dirs', 'quick_start'), help='folder (default: %(default)s)')
    parser.add_argument(
        '--cfg-options', nargs='*', default=[], metavar='KEY=VALUE', help='for all three runs, to try things'
    )
    parser.add_argument('--no-check', action='store_true', help='skip the check before each training')


def run(args: argparse.Namespace) -> None:
    """Makes the data, trains the three runs, writes the table and the pictures."""
    out = osp.abspath(args.out)
    os.environ.update(MMRKD_DATA=osp.join(out, 'data'), MMRKD_WORK_DIRS=out, PYTHONWARNINGS='ignore')
    os.makedirs(out, exist_ok=True)
    from mmrkd.datasets import make_digit_scenes

    start = time.time()
    make_digit_scenes(osp.join(out, 'data', 'digits'))
    options = ['--no-check'] * args.no_check + ['--cfg-options', *args.cfg_options] * bool(args.cfg_options)
    for number, name in enumerate(RUNS, start=1):
        print(f'[{name}] {number} of {len(RUNS)} trainings', flush=True)
        train(name, out, options)
    from mmrkd.commands.report import config_of
    from mmrkd.report import report

    dirs = {name: work_dir_of(config, out) for name, config in RUNS.items()}
    print(report({name: (config_of(folder), folder) for name, folder in dirs.items()}, out))
    print(f'\nEverything is in {out} ({time.time() - start:.0f} s this time).')


def work_dir_of(config: str, out: str) -> str:
    """The ERA config looks for its teacher in a work dir that has the name of the teacher's config."""
    return osp.join(out, osp.splitext(osp.basename(config))[0])


def train(name: str, out: str, options: list[str]) -> None:
    """Trains one run in a process of its own, shows its progress, and resumes it if it was cut short."""
    work_dir = work_dir_of(RUNS[name], out)
    done = osp.join(work_dir, 'done')
    if osp.exists(done):
        print(f'[{name}] already trained', flush=True)
        return
    command = [sys.executable, '-m', 'mmrkd', 'train', RUNS[name], '--work-dir', work_dir]
    command += ['--resume'] if osp.exists(osp.join(work_dir, 'last_checkpoint')) else []
    command += options
    start = time.time()
    with open(f'{work_dir}.log', 'a') as log:
        process = subprocess.Popen(
            command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout:
            log.write(line)
            show_progress(name, line)
    if process.wait() != 0:
        with open(f'{work_dir}.log') as log:
            sys.exit(f'[{name}] failed; the end of {work_dir}.log:\n{"".join(log.readlines()[-15:])}')
    with open(done, 'w') as mark:
        mark.write(f'{time.time() - start:.0f} s\n')


def show_progress(name: str, line: str) -> None:
    """Prints epoch, remaining time and loss, or the AP of a validation, from a line of mmengine's log."""
    step = re.search(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\].*eta: ([\d:]+).*? loss: ([\d.]+)', line)
    if step:
        epoch, iteration, total, eta, loss = step.groups()
        print(f'[{name}] epoch {epoch} step {iteration}/{total}  loss {loss}  remaining {eta}', flush=True)
    ap = re.search(r'Epoch\(val\)\s+\[(\d+)\].*?coco/bbox_mAP: ([\d.]+)', line)
    if ap:
        print(f'[{name}] epoch {ap.group(1)}  AP {float(ap.group(2)) * 100:.1f}', flush=True)


def _environment() -> dict[str, str]:
    """The process that trains finds the same mmrkd, which may lie in a clone that is not installed.

    Its threads sleep while they wait for each other. By default they spin, and on a machine that has other work to do a
    step then takes ten times as long (measured with two threads on two busy cores: 15 s against 0.5 s).
    """
    root = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    return {'OMP_WAIT_POLICY': 'PASSIVE', **os.environ, 'PYTHONPATH': path}
