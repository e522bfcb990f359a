"""Formulas: `$...$` and `$$...$$` become MathML when the site is built, so that a page needs no script and no network.

A formula that is not LaTeX fails the build.
"""

import re
from typing import Any

from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from math_core import LatexError, LatexToMathML

# Whichever begins first: a code span, which is passed by, or a formula, which may have backticks in it.
CODE = r"(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
DISPLAY = r"\$\$(?P<display>.+?)\$\$"
INLINE = r"(?<![\\$\w])\$(?!\s)(?P<inline>[^$]+?)(?<!\s)\$(?!\w)"
LATEX = LatexToMathML()


class Formula(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Any, Any, Any]:
        source = m["display"] or m["inline"]
        if source is None:
            return None, None, None
        try:
            mathml = LATEX.convert_with_local_state(" ".join(source.split()), displaystyle=bool(m["display"]))
        except LatexError as error:
            raise ValueError(f"not LaTeX: {source!r}") from error
        if m["display"]:
            mathml = f'<span class="formula">{mathml}</span>'
        return self.md.htmlStash.store(mathml), m.start(), m.end()


class Formulas(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        # Before backticks (190) and backslashes (180) are read.
        md.inlinePatterns.register(Formula(f"{CODE}|{DISPLAY}|{INLINE}", md), "formula", 195)


def on_config(config: Any) -> None:
    config.markdown_extensions.append(Formulas())
