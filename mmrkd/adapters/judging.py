"""A frozen detector computes its own losses, as a judge of features that are not its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mmrkd.adapters.samples import Samples, missing_in
from mmrkd.adapters.state import unchanged

TEXT = "a dataset with return_classes=True, and 'text' and 'custom_entities' among the meta_keys of PackDetInputs"


def one_branch_predicts(model: nn.Module) -> bool:
    """Whether this is a TridentNet that trains several branches and predicts with one of them."""
    return getattr(model, 'test_branch_idx', -1) != -1


@contextmanager
def heads_in_training(model: nn.Module) -> Iterator[None]:
    """A frozen detector computes its losses as it does in training, but learns, forgets and drops out nothing.

    Many detectors only return what their loss needs, or keep to the scale that it expects, while their ``training``
    is set (DINO, VFNet, FCOS). Layers (norms, dropout) have no children and stay as they are. What a loss writes
    into the heads is put back.
    """
    children = [m for name, m in model.named_children() if name not in ('backbone', 'neck')]
    modules = [module for child in children for module in child.modules()]
    composed = [m for m in modules if any(m.children()) and not type(m).__module__.startswith('torch.')]
    if not one_branch_predicts(model):  # it would expect the features of all branches
        composed.append(model)
    flags = [module.training for module in composed]
    with unchanged(modules):
        try:
            for module in composed:
                module.training = True
            yield
        finally:
            for module, flag in zip(composed, flags):
                module.training = flag


@contextmanager
def without_mask_head(model: nn.Module, samples: Samples) -> Iterator[None]:
    """A teacher with masks can judge features of a student that is trained on boxes: its box branch still can."""
    roi_head = getattr(model, 'roi_head', None)
    mask_head = getattr(roi_head, 'mask_head', None)
    if mask_head is None or not missing_in(samples, 'gt_instances.masks'):
        yield
        return
    roi_head.mask_head = None
    try:
        yield
    finally:
        roi_head.mask_head = mask_head


def needed_ground_truth(model: nn.Module) -> dict[str, str]:
    """Returns which fields of a sample a detector's losses cannot do without, and where each comes from."""
    semantic = [m for m in (model, getattr(model, 'roi_head', None)) if getattr(m, 'semantic_head', None) is not None]
    others = [child for name, child in model.named_children() if name != 'roi_head']
    masks = hasattr(model, 'mask_head') or any(hasattr(m, 'loss_mask') for child in others for m in child.modules())
    needed = {
        'gt_instances.masks': 'LoadAnnotations with_mask' if masks else '',
        'gt_sem_seg': 'LoadAnnotations with_seg' if semantic else '',
        'text': TEXT if reads_text(model) else '',
    }
    return {field: source for field, source in needed.items() if source}


def check_ground_truth(name: str, needed: dict[str, str], samples: Samples) -> None:
    """Raises ValueError if a batch lacks ground truth.

    Args:
        name: Name of the detector's class.
        needed: What it needs, see :func:`needed_ground_truth`.
        samples: The batch.
    """
    missing = missing_in(samples, *needed) if needed else []
    if missing:
        sources = ', '.join(needed[field] for field in missing)
        raise ValueError(
            f"TWI needs the ground truth of the teacher's own losses: {name} needs {missing}, and the "
            f'data has none. Load it ({sources}), or use features alone: ERA with twi_on="none" and w_kd=0, or FitNets'
        )


def check_text(model: nn.Module, samples: Samples) -> None:
    """Raises ValueError if a detector that looks for words (GLIP, Grounding DINO) is given none."""
    if reads_text(model) and missing_in(samples, 'text'):
        raise ValueError(f"{type(model).__name__} looks for what a text names, and the data has no 'text': {TEXT}")


def reads_text(model: nn.Module) -> bool:
    """Whether a detector looks for words and not for classes that it knows by number."""
    return isinstance(getattr(model, 'language_model', None), nn.Module)
