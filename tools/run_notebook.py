"""Runs the cells of a notebook from top to bottom in a fresh interpreter, and writes what they give into it.

    python tools/run_notebook.py docs/tutorial.ipynb

Nothing of Jupyter is needed: a cell is Python, what it prints is kept, and so is the value of its last line (a picture
as a picture). Paths below the working folder are shown without it. The file is written only if every cell ran.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('notebook', type=Path)
    parser.add_argument('--out', type=Path, help='where to write it (default: into itself)')
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    content = json.loads(args.notebook.read_text(encoding='utf-8'))
    start, names, count = time.time(), {'__name__': '__main__'}, 0
    for cell in content['cells']:
        if cell['cell_type'] != 'code':
            continue
        count += 1
        try:
            cell.update(execution_count=count, outputs=run(''.join(cell['source']), names, count))
        except Exception:
            traceback.print_exc()
            sys.exit(f'cell {count} of {args.notebook} failed')
        print(f'cell {count}: {time.time() - start:.0f} s', flush=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + '\n'
    (args.out or args.notebook).write_text(text, encoding='utf-8')


def run(source: str, names: dict, number: int) -> list:
    """Runs one cell; returns its outputs in the form of a notebook."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f'cell {number}', 'exec'), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f'cell {number}', 'eval'), names)
    outputs = []
    if printed.getvalue():
        text = printed.getvalue().replace(f'{Path.cwd()}/', '').splitlines(keepends=True)
        outputs.append(dict(output_type='stream', name='stdout', text=text))
    if value is not None:
        outputs.append(dict(output_type='execute_result', execution_count=number, metadata={}, data=shown(value)))
    return outputs


def shown(value: object) -> dict:
    """A value as Jupyter would keep it; pictures with 256 colours, so that the file stays small."""
    value = value.convert('RGB').quantize(256) if hasattr(value, 'quantize') else value
    picture = getattr(value, '_repr_png_', lambda: None)()
    if picture is not None:
        return {'image/png': base64.b64encode(picture).decode(), 'text/plain': [f'<{type(value).__name__}>']}
    return {'text/plain': repr(value).splitlines(keepends=True)}


if __name__ == '__main__':
    main()
