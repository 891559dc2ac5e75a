"""The page's view of each model: a short name, a form, and examples in its language."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.model_io.model import Model
from albert_jax.tasks.task import AnyTask

OPTIONAL = "(optional)"
"""End of the name of a field that may stay empty."""

MASK_EXAMPLES = {
    "en": ("the [MASK] of the house was open.", "she [MASK] the door and went into the [MASK]."),
    "zh": ("这家餐厅的菜很[MASK]吃。", "北京是[MASK]国的首[MASK]。"),
}
"""Texts with masks by language."""

UNRELATED = {
    "en": (
        "The ferry was late again.",
        "My neighbor will be ninety in May.",
        "Water boils at a lower temperature on a mountain.",
        "She never sold her first violin.",
        "Please close the window before it rains.",
    ),
    "zh": (
        "渡船又晚点了。",
        "我的邻居五月就九十岁了。",
        "山上的水在较低的温度下沸腾。",
        "她一直没有卖掉第一把小提琴。",
        "下雨之前请把窗户关上。",
    ),
}
"""Texts by language of which no two have to do with each other."""


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """A name for each path: its last folder, with as many before it as tell it from the others."""
    parts = {path: path.rstrip("/").split("/") for path in paths}

    def tail(path: str, count: int) -> str:
        return "/".join(parts[path][-count:]) or path

    def name(path: str) -> str:
        for count in range(1, len(parts[path])):
            found = tail(path, count)
            if found.strip(".") and all(tail(o, count) != found for o in parts if o != path):
                return found
        return path

    return {path: name(path) for path in parts}


def language(vocabulary: Vocabulary) -> str:
    """The language of most tokens with letters: "zh" if they hold Chinese characters, else "en"."""
    letters = chinese = 0
    for id in range(vocabulary.size):
        token = vocabulary.id_to_token(id)
        if any(map(str.isalpha, token)):
            letters += 1
            chinese += any("\u4e00" <= character <= "\u9fff" for character in token)
    return "zh" if chinese > letters / 2 else "en"


def fields(task: AnyTask) -> tuple[str, ...]:
    """Labels of a task's fields: one or two texts, where all training examples had so many."""
    names, count = task.page.fields, getattr(task.config, "num_texts", 0)
    if not count or not names[-1].endswith(OPTIONAL):
        return names
    return tuple(name.removesuffix(OPTIONAL).strip() for name in names[:count])


def describe(name: str, model: Model, task: AnyTask | None) -> dict[str, Any]:
    """A model as the page shows it."""
    config, spoken = model.config, language(model.vocabulary)
    form = None if task is None else _form(task, spoken)
    example = next(iter(form["examples"] if form else ()), (MASK_EXAMPLES[spoken][0],))
    masks = "mlm_head" in model.params
    if masks and not (task and task.classifies):
        example = (MASK_EXAMPLES[spoken][0],)
    return {
        "name": name,
        "source": model.source,
        "task": "" if task is None else task.name,
        "form": form,
        "masks": masks,
        "mask_examples": MASK_EXAMPLES[spoken],
        "look_example": ([*example, ""])[:2],
        "step": model.step,
        "num_layers": config.num_hidden_layers,
        "num_blocks": config.num_hidden_layers * config.inner_group_num,
        "num_heads": config.num_attention_heads * config.inner_group_num,
        "hidden_size": config.hidden_size,
        "vocab_size": model.vocabulary.size,
    }


def _form(task: AnyTask, spoken: str) -> dict[str, Any]:
    """The fields of a task with their examples, and how it generates."""
    names, examples = fields(task), task.page.examples.get(spoken, ())
    if names != task.page.fields:
        fitting = [example for example in examples if len(example) == len(names)]
        examples = fitting or [example[: len(names)] for example in examples]
    form: dict[str, Any] = {
        "title": task.page.title or task.name.replace("-", " ").capitalize(),
        "fields": names,
        "repeat_last": task.page.repeats_last,
        "generates": task.generates,
        "examples": examples,
    }
    if task.generates:
        config = task.config
        form["most_steps"] = config.max_target_length
        form["denoising_steps"] = min(config.denoising_steps, config.max_target_length)
        form["dialogue"] = config.max_turns > 1
        if form["dialogue"]:
            form["title"] = "Conversation"
        if config.max_turns == 1:  # Without dialogue, a plain sentence comes first.
            form["examples"] = form["examples"][::-1]
    return form
