"""Writes a trained model as one ONNX file that takes images and gives results, and checks it in onnxruntime."""

import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Optional

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmrkd.adapters import build_adapter
from mmrkd.adapters.image_graph import ImageGraph
from mmrkd.checkpoint import load_checkpoint_file, load_strictly
from mmrkd.registry import MODELS
from mmrkd.version import __version__

OPSET = 17
DTYPES = {'uint8': torch.uint8, 'float32': torch.float32}
IMAGES = 4
"""Random images that a file is checked on."""


def write_onnx(
    config: str,
    ckpt: str,
    path: str,
    size: Optional[Sequence[int]] = None,
    outputs: Optional[str] = None,
    dtype: str = 'uint8',
    allow_pickle: bool = False,
) -> str:
    """Writes a plain model as ``path`` and compares what onnxruntime computes with what the model predicts.

    The file takes ``images (N, 3, H, W)``, RGB, 0 to 255: channel order, normalisation and padding are inside. A
    detector gives boxes in pixels of these images.

    Args:
        config: Plain config.
        ckpt: Its checkpoint.
        path: File to write.
        size: ``(height, width)`` of the images. Defaults to that of the config's test pipeline.
        outputs: See :meth:`mmrkd.adapters.ModelAdapter.graph`.
        dtype: ``'uint8'`` or ``'float32'``, of the images.
        allow_pickle: Whether the checkpoint may run code of its own.

    Returns:
        What the file takes and gives, and how well it agrees with the model, in words.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        ValueError: The model cannot be written, or the file does not compute what the model predicts. It is not kept
            then.
    """
    require_onnx()
    cfg = Config.fromfile(config)
    model, meta = _load(cfg, ckpt, allow_pickle)
    size = tuple(size or input_size(cfg))
    graph = build_adapter(model).graph(size, outputs)
    agreement = check(graph, dtype)
    taken = _write(graph, path, dtype)
    _describe(path, graph, meta)
    return f'{path}: {taken}\nchecked in onnxruntime on {IMAGES} random images: {agreement}'


def require_onnx() -> None:
    """Raises an ImportError that says what to install, unless both packages are there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"--to onnx needs the packages onnx and onnxruntime ({error}): pip install 'mmrkd[onnx]', or pip install "
            'onnx onnxruntime'
        ) from error


def input_size(cfg: Config) -> tuple[int, int]:
    """Returns the ``(height, width)`` of images behind the test pipeline of a config.

    Raises:
        ValueError: It does not fix one.
    """
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    found = None
    for transform in dataset.get('pipeline') or ():
        name = str(transform.get('type')).rpartition('.')[2]
        if name == 'CenterCrop':
            found = _pair(transform['crop_size'])
        elif name == 'Resize' and transform.get('scale') is not None:
            found = _pair(transform['scale'])[::-1]
    if found is None:
        raise ValueError(
            'the test pipeline of the config says no size of the images (no Resize with a scale, no CenterCrop): give '
            'it, --size HEIGHT WIDTH'
        )
    return found


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _load(cfg: Config, ckpt: str, allow_pickle: bool) -> tuple[nn.Module, dict]:
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = ConfigDict(deepcopy(cfg.model))
    if cfg.get('data_preprocessor') is not None:  # mmpretrain keeps it beside the model
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    built = MODELS.build(model)
    checkpoint = load_checkpoint_file(ckpt, allow_pickle)
    load_strictly(built, checkpoint['state_dict'], ckpt)
    return built.eval(), checkpoint.get('meta') or {}


def check(graph: ImageGraph, dtype: str = 'uint8') -> str:
    """Writes a graph into a temporary file, runs it and compares it with the model; returns the numbers in words.

    Raises:
        ValueError: They differ.
    """
    checked, images = graph.checkable(), random_images(IMAGES, graph.size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'checked.onnx')
        _write(checked, path, dtype)
        found = run(path, images.to(DTYPES[dtype]))
    agreement = checked.agreement(found, images)
    if not agreement.fits:
        raise ValueError(
            f'the ONNX file does not compute what {type(graph.model).__name__} predicts ({agreement.text}), and was '
            'not written. A model that is not trained gives many detections of the same score, whose order is a matter '
            'of chance; otherwise this is a fault of the export: report it with the config.'
        )
    return agreement.text


def random_images(count: int, size: Sequence[int], seed: int = 0) -> Tensor:
    """Returns images ``(count, 3, H, W)`` of ``uint8`` with structure at several scales."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for cells in (4, 16, 64):
        noise = torch.rand(count, 3, cells, cells, generator=generator)
        layers.append(F.interpolate(noise, tuple(size), mode='bicubic', align_corners=False))
    return (torch.stack(layers).mean(dim=0).sub(0.5) * 2.5 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)


def run(path: str, images: Tensor) -> list[Tensor]:
    """Runs a file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]


def _write(graph: ImageGraph, path: str, dtype: str) -> str:
    """Traces a graph; returns what it takes and gives, in words.

    Raises:
        ValueError: It contains what ONNX has no operator for.
    """
    images = random_images(1, graph.size).to(DTYPES[dtype])
    # The exporter that traces: the newer one wants a further package, and the older torch of the two stacks has none.
    options = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # of the tracer, about numbers that are meant to be fixed
        shapes = [tuple(output.shape[1:]) for output in graph(images)]
        try:
            torch.onnx.export(
                graph,
                (images,),
                path,
                input_names=['images'],
                output_names=list(graph.names),
                dynamic_axes={name: {0: 'N'} for name in ('images', *graph.names)},
                opset_version=OPSET,
                **options,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ValueError(
                f'{type(graph.model).__name__} contains what ONNX has no operator for: {str(error).splitlines()[0]}. '
                'mmdeploy brings operators of its own for some of them.'
            ) from error
    given = ', '.join(f'{name} (N, {", ".join(map(str, shape))})' for name, shape in zip(graph.names, shapes))
    height, width = graph.size
    return f'images (N, 3, {height}, {width}) {dtype}, RGB, 0 to 255 -> {given}'


def _describe(path: str, graph: ImageGraph, meta: dict) -> None:
    """Writes into the file what one must know to use it."""
    import onnx

    model = onnx.load(path)
    facts = {'input': 'RGB, 0 to 255, channels first; normalised inside', 'mmrkd': __version__}
    classes = (meta.get('dataset_meta') or {}).get('classes')
    if classes is not None:
        facts['classes'] = json.dumps(list(classes))
    onnx.helper.set_model_props(model, {**facts, 'model': type(graph.model).__name__})
    onnx.checker.check_model(model)
    onnx.save(model, path)
