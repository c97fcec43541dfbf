"""Detection scenes composed of the handwritten digits that scikit-learn ships, in COCO format.

scikit-learn carries 1,797 scans of handwritten digits (8 x 8 pixels, ten classes) inside its package, so a detection
set made of them needs no download, takes seconds to write and minutes to learn.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

DIGIT_CLASSES = tuple('0123456789')
SPLITS = ('train', 'val', 'test')
SCAN_SHARES = (0.6, 0.2, 0.2)  # of the scans of each class, in the order of SPLITS
MARKER = 'meta.json'
GENERATOR = 'mmrkd digit scenes 1'  # raise the number whenever the same arguments give other files
MAX_HIDDEN = 0.15  # of a digit's ink that one later digit may cover
PLACEMENT_TRIALS = 30
DIGIT_CONTRAST = (60, 130)  # grey levels between ink and the paper under it

ScansByClass = list[np.ndarray]
Scene = tuple[np.ndarray, list[int], list[list[int]]]


def make_digit_scenes(
    root: Union[str, Path],
    num_train: int = 800,
    num_val: int = 150,
    num_test: int = 150,
    image_size: tuple[int, int] = (160, 160),
    digits_per_scene: tuple[int, int] = (3, 8),
    digit_size: tuple[int, int] = (20, 56),
    clutter: float = 1.0,
    seed: int = 0,
) -> bool:
    """Writes a COCO-format detection set whose objects are handwritten digits.

    Layout: ``images/{train,val,test}/NNNNNN.png``, ``annotations/{train,val,test}.json`` and ``meta.json``, which is
    completed last and holds the arguments. If it is there and says the same, nothing is done; if it differs or the
    last run was cut short, the set is made anew. Only files that this function writes are ever deleted.

    No scan of a digit appears in two splits, so val and test measure digits that were never seen. The categories
    are 1 to 10, named '0' to '9'. Boxes are tight around the ink that is visible and lie inside the image. The
    same arguments give the same files; the global random state is neither read nor changed.

    Args:
        root: Folder to write to; made if it is not there.
        num_train: Number of training scenes.
        num_val: Number of validation scenes.
        num_test: Number of test scenes.
        image_size: Width and height of a scene in pixels.
        digits_per_scene: Fewest and most digits in a scene; a crowded scene may hold fewer.
        digit_size: Smallest and largest height of a digit in pixels, before it is slanted and turned.
        clutter: Strength of texture, lines, blobs and noise; 0 gives black ink on plain white paper.
        seed: Seed of everything that is random.

    Returns:
        True if the set was written, False if it was there already.

    Raises:
        FileExistsError: ``root`` holds files and no marker of this generator.
        ImportError: scikit-learn is not installed.
        ValueError: An argument makes no sense.
    """
    root = Path(root)
    meta = dict(
        generator=GENERATOR,
        counts=dict(zip(SPLITS, (num_train, num_val, num_test))),
        image_size=list(image_size),
        digit_size=list(digit_size),
        digits_per_scene=list(digits_per_scene),
        clutter=float(clutter),
        seed=int(seed),
    )
    _check_arguments(meta)
    if _read_marker(root) == dict(meta, complete=True):
        return False
    scans = split_scans(seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(json.dumps(dict(meta, complete=False)))  # first: a run cut short is known as ours
    _clear(root)
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, index])
        deck: list[int] = []
        scenes = (_draw_scene(rng, scans[split], deck, meta) for _ in range(meta['counts'][split]))
        _write_split(root, split, scenes, image_size)
    (root / MARKER).write_text(json.dumps(dict(meta, complete=True), indent=2) + '\n')
    return True


def digit_scene(seed: int = 0, split: str = 'test', size: tuple[int, int] = (160, 160)) -> Scene:
    """Draws one scene as :func:`make_digit_scenes` does by default, but of a seed of its own.

    Args:
        seed: Of the scene. Which scans belong to which split does not depend on it.
        split: Whose scans are shown.
        size: Width and height in pixels.

    Returns:
        The image (H, W, 3), blue first, uint8; the label of each digit; its box as [x, y, width, height].
    """
    rng = np.random.default_rng([seed, len(SPLITS), SPLITS.index(split)])
    meta = dict(image_size=size, digit_size=(20, 56), digits_per_scene=(3, 8), clutter=1.0)
    return _draw_scene(rng, split_scans()[split], [], meta)


def split_scans(seed: int = 0) -> dict[str, ScansByClass]:
    """Divides the scans among the splits so that none is in two of them.

    Args:
        seed: Seed of the division.

    Returns:
        For each split a list of ten arrays of shape (N, 8, 8), float32 in [0, 1]; entry ``i`` holds digit ``i``.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'The digit scenes are made of the scans that scikit-learn ships, and it is not installed: '
            'pip install scikit-learn'
        ) from error
    digits = load_digits()
    rng = np.random.default_rng([seed, len(SPLITS)])
    scans: dict[str, ScansByClass] = {split: [] for split in SPLITS}
    for label in range(len(DIGIT_CLASSES)):
        found = rng.permutation(digits.images[digits.target == label].astype(np.float32) / 16)
        cuts = np.round(np.cumsum(SCAN_SHARES)[:-1] * len(found)).astype(int)
        for split, part in zip(SPLITS, np.split(found, cuts)):
            scans[split].append(part)
    return scans


def _check_arguments(meta: dict) -> None:
    """Refuses arguments that cannot give a usable set."""
    (fewest, most), (smallest, largest) = meta['digits_per_scene'], meta['digit_size']
    if min(meta['counts'].values()) < 1:
        raise ValueError(f'Every split needs at least one scene; got {meta["counts"]}')
    if not 1 <= fewest <= most:
        raise ValueError(f'digits_per_scene must be (fewest, most) with 1 <= fewest <= most; got {(fewest, most)}')
    if not 8 <= smallest <= largest or 2 * largest > min(meta['image_size']):
        raise ValueError(
            'digit_size must be (smallest, largest) with 8 <= smallest <= largest <= half the shorter '
            f'side of image_size {tuple(meta["image_size"])}; got {(smallest, largest)}'
        )
    if meta['clutter'] < 0:
        raise ValueError(f'clutter must be 0 or more; got {meta["clutter"]}')


def _read_marker(root: Path) -> Optional[dict]:
    """Returns what the marker says, None for an empty or missing folder; refuses a folder that is somebody else's."""
    if not root.exists() or root.is_dir() and not any(root.iterdir()):
        return None
    try:
        marker = json.loads((root / MARKER).read_text())
        if marker['generator'].startswith(GENERATOR.rstrip('0123456789')):
            return marker
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise FileExistsError(
        f'{root} exists and holds no {MARKER} of the digit scenes, so it was not made by this '
        'function and is left alone. Choose an empty or new folder, or remove this one yourself.'
    )


def _clear(root: Path) -> None:
    """Deletes what an earlier run wrote, file by file, and makes the folders."""
    for split in SPLITS:
        (root / 'images' / split).mkdir(parents=True, exist_ok=True)
        for path in (root / 'images' / split).glob('[0-9]' * 6 + '.png'):
            path.unlink()
        (root / 'annotations' / f'{split}.json').unlink(missing_ok=True)
    (root / 'annotations').mkdir(exist_ok=True)


def _write_split(root: Path, split: str, scenes: Iterator, image_size: tuple[int, int]) -> None:
    """Writes the images and the annotation file of one split."""
    images, annotations = [], []
    for image_id, (image, labels, boxes) in enumerate(scenes, start=1):
        name = f'{image_id:06d}.png'
        path = root / 'images' / split / name
        if not cv2.imwrite(str(path), image):
            raise OSError(f'{path} could not be written; see that the disk has room and the folder is writable')
        images.append(dict(id=image_id, file_name=name, width=image_size[0], height=image_size[1]))
        for label, box in zip(labels, boxes):
            area = box[2] * box[3]
            annotation = dict(image_id=image_id, category_id=label + 1, bbox=box, area=area, iscrowd=0)
            annotations.append(dict(annotation, id=len(annotations) + 1))
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(DIGIT_CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def _draw_scene(rng: np.random.Generator, scans: ScansByClass, deck: list[int], meta: dict) -> Scene:
    """Draws one scene.

    Args:
        rng: Source of everything random.
        scans: The scans of each class.
        deck: Labels that wait for their turn; refilled with all ten in random order, so that even a small set has
            every class. Changed in place.
        meta: The arguments of ``make_digit_scenes``.

    Returns:
        The image (H, W, 3), uint8; the label of each digit, 0 to 9; its box as [x, y, width, height].
    """
    image = _draw_background(rng, *meta['image_size'], meta['clutter'])
    owner = np.full(image.shape[:2], -1, np.int16)  # index of the topmost digit at each pixel
    labels: list[int] = []
    fewest, most = meta['digits_per_scene']
    for _ in range(rng.integers(fewest, most + 1)):
        if not deck:
            deck.extend(rng.permutation(len(DIGIT_CLASSES)).tolist())
        scan = rng.choice(scans[deck[-1]])
        if _write_digit(rng, image, owner, len(labels), scan, meta):
            labels.append(deck.pop())
    image += rng.normal(0, meta['clutter'] * rng.uniform(1, 8), image.shape)
    boxes = [tight_box(owner == index) for index in range(len(labels))]
    return np.clip(np.round(image), 0, 255).astype(np.uint8), labels, boxes


def _draw_background(rng: np.random.Generator, width: int, height: int, clutter: float) -> np.ndarray:
    """Draws paper with a gradient, a texture, and lines, arcs and blobs on it, (H, W, 3), float32 in [0, 255]."""
    if clutter == 0:
        return np.full((height, width, 3), 255, np.float32)
    corners = rng.uniform(70, 185) + clutter * rng.uniform(-40, 40, (2, 2, 3))
    image = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    for cells in (5, 20):
        texture = rng.normal(0, clutter * rng.uniform(0, 10), (cells, cells)).astype(np.float32)
        image += cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    for _ in range(rng.poisson(5 * clutter)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        ink = _contrasting_ink(rng, image[y, x], 15, 60).tolist()
        reach = (int(rng.integers(6, 40)), int(rng.integers(6, 40)) if rng.random() < 0.6 else 0)  # 0: a straight line
        thickness = -1 if rng.random() < 0.3 else int(rng.integers(1, 6))
        start, sweep = rng.uniform(0, 360), rng.uniform(60, 360)
        cv2.ellipse(image, (x, y), reach, rng.uniform(0, 180), start, start + sweep, ink, thickness)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))


def _contrasting_ink(rng: np.random.Generator, paper: np.ndarray, low: float, high: float) -> np.ndarray:
    """Chooses a colour that is ``low`` to ``high`` grey levels away from ``paper`` (3,), float32 in [0, 255].

    It goes the way that has the room: lighter on dark paper, darker on light paper, either way in between.
    """
    contrast = rng.uniform(low, high)
    lighter = rng.random() < np.clip((200 - paper.mean()) / 145, 0, 1)
    ink = paper + (contrast if lighter else -contrast) + rng.uniform(-0.3, 0.3, 3) * contrast
    return np.clip(ink, 0, 255).astype(np.float32)


def _write_digit(
    rng: np.random.Generator, image: np.ndarray, owner: np.ndarray, index: int, scan: np.ndarray, meta: dict
) -> bool:
    """Writes a digit where it neither leaves the image nor hides another one too much.

    Args:
        rng: Source of everything random.
        image: Scene (H, W, 3), float32; changed in place.
        owner: Index of the topmost digit at each pixel (H, W), -1 for none; changed in place.
        index: Index of this digit.
        scan: Scan (8, 8), float32 in [0, 1].
        meta: The arguments of ``make_digit_scenes``.

    Returns:
        Whether a place was found.
    """
    inked = np.bincount(owner[owner >= 0], minlength=index)
    for _ in range(PLACEMENT_TRIALS):
        coverage = _deform(rng, scan, owner.shape, meta['digit_size'])
        ink = coverage > 0.5
        hidden = np.bincount(owner[ink & (owner >= 0)], minlength=index)
        if (hidden > MAX_HIDDEN * inked).any():
            continue
        colour = 0 if meta['clutter'] == 0 else _contrasting_ink(rng, image[ink].mean(axis=0), *DIGIT_CONTRAST)
        image += coverage[..., None] * (colour - image)
        owner[ink] = index
        return True
    return False


def _deform(rng: np.random.Generator, scan: np.ndarray, shape: tuple[int, int], sizes: tuple[int, int]) -> np.ndarray:
    """Enlarges, slants and turns a scan and puts it somewhere in the image; at most a tenth of its height is cut off.

    Returns:
        Share of each pixel that is ink, (H, W), float32 in [0, 1].
    """
    height, width = shape
    size = np.exp(rng.uniform(*np.log(sizes)))  # as many small digits as large ones
    centre = rng.uniform(0.4 * size, (width - 0.4 * size, height - 0.4 * size))
    angle, slant, aspect = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = size / len(scan) * turn @ np.array([[aspect, slant], [0, 1]])
    middle = (len(scan) - 1) / 2
    shift = centre - matrix @ (middle, middle)
    stretched = cv2.warpAffine(scan, np.column_stack([matrix, shift]), (width, height), flags=cv2.INTER_CUBIC)
    return np.clip((stretched - 0.25) / 0.4, 0, 1)


def tight_box(mask: np.ndarray) -> list[int]:
    """Returns the smallest box around the true pixels of a mask (H, W) as [x, y, width, height]."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
