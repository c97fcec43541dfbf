"""Brings pages that lie elsewhere in the repository into the documentation, and turns their links to fit."""

import json
import os.path as osp
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
SINGLE = (
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'SECURITY.md',
    'CODE_OF_CONDUCT.md',
    'LICENSE',
    'CITATION.cff',
)
FOLDERS = {'configs': ('*.md', '*.py', '*.yml'), 'benchmarks': ('*.md', '*.py', '*.jsonl'), 'tools': ('*.sh', '*.py')}
LINK = re.compile(r'(\]\(|^\[[^\]]+\]: +)([^)\s#]+)', flags=re.M)


def on_files(files, config):
    """Adds them, under their path in the repository; the README is the first page."""
    for path in _elsewhere():
        uri = place(path)
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding='utf-8')))
    for path in sorted((ROOT / 'docs').glob('*.ipynb')):
        files.append(File.generated(config, f'{path.stem}.md', content=from_notebook(path)))
    return files


def from_notebook(path):
    """Returns the cells of a notebook and what they gave as a page."""
    parts = []
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(source)
            continue
        parts.append(f'```python\n{source}\n```')
        for output in cell['outputs']:
            data = output.get('data', {})
            if 'image/png' in data:
                parts.append(f'<img src="data:image/png;base64,{data["image/png"]}" alt="what the cell above gives">')
            else:
                text = ''.join(output.get('text') or data['text/plain'])
                parts.append(f'```text\n{text.rstrip()}\n```')
    return '\n\n'.join(parts) + '\n'


def on_page_markdown(markdown, page, **_):
    """Makes each link, which is right in the repository, right in the site."""
    return turned(markdown, page.file.src_uri)


def turned(markdown, uri):
    """Returns the text of a page with its links relative to where they lie in the site.

    Args:
        markdown: The page as it is in the repository.
        uri: Its place in the site.
    """
    home = osp.dirname(origin(uri))

    def turn(found):
        lead, target = found.groups()
        if '://' in target or target.startswith('mailto:'):
            return found.group()
        path = osp.normpath(osp.join(home, target))
        if (ROOT / path).is_dir():
            path = osp.join(path, 'README.md')
        return lead + osp.relpath(place(path), osp.dirname(uri) or '.')

    return LINK.sub(turn, markdown)


def place(path):
    """Path in the repository -> path in the site."""
    if path == 'README.md':
        return 'index.md'
    return path[len('docs/') :] if path.startswith('docs/') else path


def origin(uri):
    """Path in the site -> path in the repository."""
    if uri == 'index.md':
        return 'README.md'
    path = ROOT / 'docs' / uri
    return f'docs/{uri}' if path.exists() or path.with_suffix('.ipynb').exists() else uri


def _elsewhere():
    yield from (name for name in SINGLE if (ROOT / name).exists())
    for folder, patterns in FOLDERS.items():
        for pattern in patterns:
            yield from (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / folder).rglob(pattern)))
