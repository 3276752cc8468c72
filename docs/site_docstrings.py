"""Griffe's extension for the site: the source of a docstring is a paragraph, not a box."""

import re
from typing import Any

import griffe

# Griffe takes `Title: text` for the heading of a box if the text goes on in an indented line.
CONTINUED = re.compile(r"^(?=\S)([^\n:]+: \S[^\n]*(?:\n {2,}\S[^\n]*)+)", re.MULTILINE)
SOURCE = re.compile(r"^Source: ", re.MULTILINE)


class Paragraphs(griffe.Extension):
    """Joins the lines of `Title: text` paragraphs, and makes the title of a source bold."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = paragraphs(obj.docstring.value)


def paragraphs(text: str) -> str:
    """Return a docstring's ``text`` without indented continuations of `Title: text`."""
    joined = CONTINUED.sub(lambda match: re.sub(r"\n +", " ", match[1]), text)
    return SOURCE.sub("**Source:** ", joined)
