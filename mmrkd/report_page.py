"""A comparison as one HTML page that needs nothing beside itself."""

import base64
import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from mmrkd.diagnosis import Finding

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f3f5f7; --strong: #00796b; }
@media (prefers-color-scheme: dark) { :root { --line: #3b434b; --soft: #20262c; --strong: #4db6ac; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { white-space: normal; }
th:first-child, td:first-child { text-align: left; } tr.best td { color: var(--strong); font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .9rem; opacity: .8; } summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--soft); padding: .7rem; font-size: .85rem; border-radius: 4px; }
li p { margin: .2rem 0; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<h2>Results</h2>
<div class="wide"><table>
<tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr{% if loop.index0 == best %} class="best"{% endif %}>
{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% for caption, picture in pictures %}<figure><img src="{{ picture }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% for run in runs %}<h2>{{ run.name }}</h2>
{% if run.findings is not none %}<h3>Why it may not have helped</h3>
{% if run.findings %}<ul>{% for finding in run.findings %}<li><p><b>{{ finding.name }}</b>: {{ finding.sentence }}</p>
<p>{{ finding.advice }}</p></li>{% endfor %}</ul>{% else %}<p>None of the causes that are looked for was found.</p>
{% endif %}{% endif %}
{% if run.measured %}<div class="wide"><table>{% for key, value in run.measured.items() %}
<tr><td>{{ key }}</td><td>{{ value }}</td></tr>{% endfor %}</table></div>{% endif %}
{% for caption, picture in run.embedded %}<figure><img src="{{ picture }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% if run.difference %}<details><summary>What its config adds to the plain student's</summary>
<pre>{{ run.difference }}</pre></details>{% endif %}
{% endfor %}
<h2>Environment</h2>
<div class="wide"><table>{% for key, value in environment.items() %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</table></div>
</body>
</html>
"""


@dataclass
class RunSection:
    """What the page says of one run.

    Attributes:
        name: Its heading.
        findings: Of its diagnosis; ``None`` if it left no facts.
        measured: Numbers, by what they are.
        pictures: Caption -> PNG.
        difference: What its config adds to that of the plain student, as lines.
    """

    name: str
    findings: Optional[Sequence[Finding]] = None
    measured: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    difference: str = ''

    @property
    def embedded(self) -> list[tuple[str, str]]:
        """Caption and address of each picture, the file itself being the address."""
        return [(caption, data_address(path)) for caption, path in self.pictures.items()]


def write_page(
    path: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    pictures: Mapping[str, str],
    runs: Sequence[RunSection],
    environment: Mapping[str, object],
) -> None:
    """Writes the page. Everything in it is escaped; no script, no font and no picture is loaded from anywhere.

    Args:
        path: HTML file.
        title: Of the page.
        header: Of the table.
        rows: Of the table; the second cell is the number that counts, and the highest one is marked.
        pictures: Caption -> PNG, below the table.
        runs: A section for each.
        environment: Fact -> value.
    """
    from jinja2 import Environment  # which torch needs, too

    best = max(range(len(rows)), key=lambda index: float(rows[index][1]), default=None)
    shown = [(caption, data_address(picture)) for caption, picture in pictures.items()]
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE)
    text = template.render(
        title=title, header=header, rows=rows, best=best, pictures=shown, runs=runs, environment=environment
    )
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def data_address(path: str) -> str:
    """Returns a PNG as an address that holds it."""
    with open(path, 'rb') as file:
        return f'data:image/png;base64,{base64.b64encode(file.read()).decode()}'


def newest_pictures(folder: str, count: int = 2) -> dict[str, str]:
    """Returns the last picture that a run's visualiser drew of each thing, at most so many: caption -> PNG.

    Args:
        folder: Work dir.
        count: How many.
    """
    import glob
    import re

    last: dict[str, tuple[int, str]] = {}
    for path in glob.glob(osp.join(glob.escape(folder), '*', 'vis_data', 'vis_image', '*.png')):
        found = re.fullmatch(r'(.+)_(\d+)\.png', osp.basename(path))
        if found and int(found[2]) >= last.get(found[1], (-1, ''))[0]:
            last[found[1]] = (int(found[2]), path)
    return {f'{name}, after {step}': path for name, (step, path) in sorted(last.items())[:count]}
