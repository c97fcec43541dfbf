"""Turns what Sphinx would read in our docstrings into Markdown: roles, formulas, drawings."""

import re
import textwrap

import griffe

ROLE = re.compile(r':(?:class|func|meth|attr|mod|data):`(?P<short>~?)(?P<name>[\w.]+)`')
INLINE_MATH = re.compile(r':math:`([^`]+)`')
BLOCK = re.compile(
    r'^(?P<indent> *)\.\. (?P<kind>math|code)::(?P<rest>[^\n]*)\n(?P<body>(?:(?P=indent) +\S[^\n]*\n|\n)*)', re.M
)


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj, **_):
        """Of modules, classes, functions and attributes."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text):
    """Returns a docstring with its roles as code, formulas and drawings in fences.

    Args:
        text: The docstring, without the indentation of its surroundings.
    """
    text = BLOCK.sub(_fenced, text + '\n')
    text = INLINE_MATH.sub(r'`\1`', text)
    return ROLE.sub(lambda found: f'`{found["name"].rpartition(".")[2] if found["short"] else found["name"]}`', text)


def _fenced(found):
    rest = found['rest'].strip()
    first = [rest] if rest and found['kind'] == 'math' else []
    body = '\n'.join([*first, textwrap.dedent(found['body']).strip('\n')]).strip('\n')
    fence = f'```{"latex" if found["kind"] == "math" else "text"}\n{body}\n```\n\n'
    return textwrap.indent(fence, found['indent'])
