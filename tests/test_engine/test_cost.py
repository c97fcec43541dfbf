import torch
from mmengine.config import Config

from mmrkd.engine.cost import cost_table, measure_cost
from mmrkd.testing import build_distiller, build_model, detection_batch, save_random_teacher, tiny_retinanet


def convolution_flops(model, size):
    """Multiply-adds of every convolution and linear layer for one image, counted with hooks."""
    total = 0

    def count(module, _inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    model.eval()(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return total


def test_cost_counts_parameters_and_operations_and_leaves_the_model_as_it_was(monkeypatch):
    model = build_model(tiny_retinanet())
    said = []
    monkeypatch.setattr('mmengine.analysis.jit_analysis.print_log', lambda *message: said.append(message))
    cost = measure_cost(model, detection_batch(2, size=96), repeats=1)
    assert not said  # the table is not buried under the names of operators that are not counted
    assert cost.params == sum(p.numel() for p in model.parameters())
    expected = convolution_flops(model, 96)
    assert expected <= cost.flops < 1.1 * expected  # norms, activations and additions are the rest
    assert cost.latency > 0 and 'forward' not in vars(model)


def test_table_has_a_row_for_each_variant(tmp_path):
    student, teacher = tiny_retinanet(8, 16), save_random_teacher(tiny_retinanet(16, 32), tmp_path)
    methods = [dict(type='mmrkd.ERA')]
    distiller = build_distiller(student, teacher, methods)
    metrics = {
        'coco/bbox_mAP': 0.25,
        'integrated/coco/bbox_mAP': 0.5,
        'teacher/coco/bbox_mAP': 0.75,
        'blend/coco/bbox_mAP': 0.6,
    }
    table = cost_table(
        Config(), distiller, [detection_batch(1)], ['student', 'integrated', 'teacher', 'blend'], metrics
    )
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ['student', '0.25'],
        ['integrated', '0.5'],
        ['teacher', '0.75'],
        ['blend', '0.6'],
    ]
    assert rows[3][2] == 'student + integrated'
    params = [float(row[2]) for row in rows[:3]]
    assert params[0] == round(sum(p.numel() for p in distiller.student.parameters()) / 1e6, 3)
    assert params[0] < params[1]
