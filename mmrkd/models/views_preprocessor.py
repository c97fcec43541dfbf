"""Several views of an image, from the data pipeline to the methods that compare them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

PIPELINE = (
    'put MultiView before the packing of the training pipeline (train_dataloader.dataset.pipeline), the plain view '
    "first:\n  dict(type='MultiView', num_views=[{ones}], transforms=[[...plain view...]{others}]),\n"
    "  dict(type='PackInputs'),\n"
)


class MissingViews(ValueError):
    """A method reads a view of the images that the pipeline does not give."""


class MixedViews(ValueError):
    """Images are mixed, and a method compares several views of them."""


class ViewsPreprocessor(nn.Module):
    """Runs a model's own data preprocessor once for each view of a batch.

    A batch of one view is handed on unchanged. With several (mmpretrain's ``MultiView`` packs a list of images for each
    sample) the first is what the plain config would see, and the others go beside it as ``views``, which mmengine hands
    to the model's ``forward`` as a keyword argument.

    It has the attributes of the preprocessor around which it stands, and no state of its own.

    Args:
        own: The student's data preprocessor.
    """

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('own'), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """A hook that exchanges ``batch_augments`` means those of the own preprocessor."""
        own = self.__dict__.get('_modules', {}).get('own')
        if own is not None and name not in self.__dict__ and hasattr(own, name):
            setattr(own, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, data: Any, training: bool = False) -> Any:
        """Returns what the own preprocessor returns, and further ``views``, tensors ``(N, 3, H, W)``.

        Raises:
            MixedViews: The preprocessor mixes images (mixup, cutmix), each view in another way.
        """
        views = split_views(data['inputs']) if isinstance(data, dict) and 'inputs' in data else []
        if len(views) < 2:
            return self.own(data, training)
        if training:
            require_unmixed(self.own)
        first = self.own({**data, 'inputs': views[0]}, training)
        others = [self.own({'inputs': view}, training)['inputs'] for view in views[1:]]
        return {**first, 'views': tuple(others)}


def split_views(inputs: Any) -> list[Any]:
    """Returns the views in the images of a batch, each as a batch of one view has them; one if there are no others.

    ``default_collate`` gives a list of tensors ``(N, 3, H, W)``, ``pseudo_collate`` a list of tuples of N images, where
    a batch of one view is a tensor or a list of N images ``(3, H, W)``.
    """
    if not isinstance(inputs, (list, tuple)) or not inputs:
        return [inputs]
    first = inputs[0]
    if isinstance(first, Tensor) and first.dim() == 4:
        return list(inputs)
    return [list(view) for view in inputs] if isinstance(first, (list, tuple)) else [inputs]


def require_unmixed(preprocessor: nn.Module, methods: Sequence[str] = ()) -> None:
    """Raises MixedViews if a preprocessor mixes images, and says with what.

    Args:
        preprocessor: The student's.
        methods: Names of the methods that compare several views, for the message.
    """
    augments = getattr(preprocessor, 'batch_augments', None)
    if augments is not None:
        found = getattr(augments, 'augments', [augments])
        names = [type(augment).__name__ for augment in found if augment is not None]
        who = f' compared by {", ".join(methods)}' if methods else ''
        raise MixedViews(
            f'batch augments ({", ".join(names)}) mix the images of each view{who} in another way, so that their '
            'labels would not fit: take batch_augments out of the data_preprocessor, or use a method of one view'
        )


def name_views(names: Sequence[str], views: Sequence[Tensor], wanted: Sequence[str], method: str) -> dict[str, Tensor]:
    """Returns the further views of a batch by name.

    Args:
        names: Names of the pipeline's views, the plain one first.
        views: Views beyond the first.
        wanted: Those that a method reads.
        method: Its name.

    Raises:
        MissingViews: The batch has fewer views than the method reads, or none is called so.
    """
    found = dict(zip(names[1:], views))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise MissingViews(
            f'{method} reads the views {list(wanted)}, but the batch has {1 + len(views)} ({[names[0], *found]}): '
            f'{_lines_to_paste(names, wanted)}The distiller calls them {list(names)}, in this order (view_names).'
        )
    return found


def _lines_to_paste(names: Sequence[str], wanted: Sequence[str]) -> str:
    known = [names.index(name) for name in wanted if name in names[1:]]
    further = names[1 : 1 + max(known)] if known else wanted
    others = ''.join(f', [...{name} view...]' for name in further)
    return PIPELINE.format(ones=', '.join('1' for _ in range(1 + len(further))), others=others)
