"""Our classifier in Transformers: the exported network, and our head's parameters put on it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from albert_jax.export import huggingface
from albert_jax.model_io.model import Model
from albert_jax.tasks.classification import ClassificationConfig


def classifier(model: Model) -> tuple[Any, Any]:
    """(AlbertForSequenceClassification in evaluation mode, its tokenizer) of a classification run.

    The model must judge by the pooled [CLS] (task.pooling "cls"). Needs torch and transformers.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import numpy as np
    import torch
    from transformers import AlbertForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    task = model.run_config.task
    if not isinstance(task, ClassificationConfig) or task.pooling != "cls":
        raise SystemExit(f"{model.source}: give a classification run with task.pooling cls")
    logging.set_verbosity_error()  # It would warn that the head is new, which is put on below.
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.join(temporary, "exported")
        huggingface.export(model, folder, head="base")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        theirs = AlbertForSequenceClassification.from_pretrained(
            folder,
            id2label=dict(enumerate(task.labels)),
            label2id={label: i for i, label in enumerate(task.labels)},
            classifier_dropout_prob=task.classifier_dropout_prob,
        )
    head = model.params["head"]["classifier"]
    with torch.no_grad():
        theirs.classifier.weight.copy_(torch.from_numpy(np.array(head["kernel"]).T.copy()))
        theirs.classifier.bias.copy_(torch.from_numpy(np.array(head["bias"])))
    return theirs.eval(), tokenizer
