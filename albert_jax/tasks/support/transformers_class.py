"""The class of Hugging Face Transformers that a fine-tuned model becomes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TransformersClass:
    """The class of Hugging Face Transformers that a model becomes, and what goes into it."""

    name: str
    """For example "AlbertForSequenceClassification"."""
    modules: tuple[str, ...] = ()
    """Pretrained modules of ours that it has beside embeddings and encoder ("pooler")."""
    head: tuple[str, str] | None = None
    """Our dense layer under "head" and the name of that layer there."""
    pipeline: str | None = None
    """The pipeline tag of model hubs, "text-classification"."""
    usage: tuple[str, ...] = ()
    """Lines of Python for the model card that apply THIS_FOLDER, where the Auto class alone or a
    pipeline does not."""

    @property
    def auto(self) -> str:
        """The Auto class that loads it, "AutoModelForSequenceClassification"."""
        return "AutoModel" + self.name.removeprefix("Albert").removeprefix("Model")


def usage(auto: str, num_texts: int, *logits: str) -> tuple[str, ...]:
    """Lines that apply an Auto class to a batch of texts, or of pairs of texts; then `logits`."""
    examples = {
        "texts": '["The food was cold.", "What a warm welcome!"]',
        "others": '["The soup was not warm.", "They greeted us."]',
    }
    names = list(examples)[: max(1, num_texts)]
    return (
        "import transformers",
        "",
        f'model = transformers.{auto}.from_pretrained("THIS_FOLDER")',
        'tokenizer = transformers.AutoTokenizer.from_pretrained("THIS_FOLDER")',
        *(f"{name} = {examples[name]}" for name in names),
        f"inputs = tokenizer({', '.join(names)}, padding=True, truncation=True,",
        '                   return_tensors="pt")',
        *logits,
    )
