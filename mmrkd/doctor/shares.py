"""Which share of the gradient on the student's features each weight gives, and which weight would give it another."""

import math
from typing import Any

from mmrkd.doctor.report import Report
from mmrkd.models import Distiller, DistillMethod
from mmrkd.models.balance import BalanceRequest
from mmrkd.models.gradient_shares import measure, terms_of
from mmrkd.models.step import Step

ASKED = BalanceRequest.share


def propose_weights(distiller: Distiller, data: dict[str, Any], report: Report) -> None:
    """Measures the shares of one batch and proposes numbers to paste.

    Args:
        distiller: A copy, in training; its buffers change.
        data: What its data preprocessor gave.
        report: Receives a table with a row for each weight that is not 0.
    """
    running, rows = distiller.running, []
    views, names = data.get('views', ()), distiller.view_names
    w_task = math.prod(method.full_task_weight for method in running)
    if running:
        with Step(distiller.adapter, running, data['inputs'], data['data_samples'], views, names) as step:
            for method in running:
                rows += _rows(method, step, w_task)
    if rows:
        header = ['weight', 'value', 'share', f'would have a share of {ASKED}']
        report.table("the task loss's gradient on the student's features is 1; the share of each term:", header, rows)
        report.say(f"  (of one batch; 'auto' instead of a weight, or balance={ASKED}, measures it in the training)")


def _rows(method: DistillMethod, step: Step, w_task: float) -> list[list[str]]:
    losses = method.losses(step.student_view(method), step.teacher_view(method), step.samples)
    values = {weight: getattr(method, weight) for weight in method.weights if getattr(method, weight)}
    groups = terms_of(losses, {weight: method.weights[weight] for weight in values})
    *shares, together = measure(list(groups.values()), step.task_losses, step.student_features(method), w_task, True)
    rows = [
        [f'{method.name}.{weight}', f'{value:.4g}', *_proposed(weight, value, share)]
        for (weight, value), share in zip(values.items(), shares)
    ]
    if len(rows) > 1:
        rows.append([f'{method.name}, all of them', '', *_proposed('each times ', 1.0, together, sign='')])
    return rows


def _proposed(weight: str, value: float, share: float, sign: str = '=') -> tuple[str, str]:
    if not share:
        return '0', '(no gradient there)'
    return f'{share:.3g}', f'{weight}{sign}{value * ASKED / share:.2g}'
