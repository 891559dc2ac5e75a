"""Forms in which the web page asks for an example of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Examples = Mapping[str, tuple[tuple[str, ...], ...]]
"""Texts for the fields of a form by language ("en", "zh")."""


@dataclass(frozen=True)
class PageForm:
    """The fields of a task on the web page."""

    title: str = ""
    """Heading; empty: the name of the task."""
    fields: tuple[str, ...] = ("text",)
    """Labels of the fields, in the order of the parts of a typed line. The label of one that may
    stay empty ends in "(optional)"."""
    repeats_last: bool = False
    """True if the last field may be given several times (choices, turns)."""
    examples: Examples = field(default_factory=dict)
    """Texts to begin with."""


PAIRS: Examples = {
    "en": (
        ("A man is playing the guitar.", "Someone makes music."),
        ("The ferry was late again.", "Once more the ferry was not on time."),
        ("The ferry was late again.", "My neighbor will be ninety in May."),
    ),
    "zh": (
        ("一个男人在弹吉他。", "有人在演奏音乐。"),
        ("渡船又晚点了。", "渡船这次还是没有准时到。"),
        ("渡船又晚点了。", "我的邻居五月就九十岁了。"),
    ),
}
"""Pairs of texts for the tasks that tell how alike they are."""
