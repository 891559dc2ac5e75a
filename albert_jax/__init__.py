"""ALBERT (Lan et al. 2019) in JAX: pretraining, evaluation, export, fine-tuning.

Models, and what the commands of the command line do with them:

  load              a model from a run folder or an exported directory
  save              a model as a directory that load, or Transformers, reads
  predict           what a fine-tuned model says of texts
  embed             a vector for each text
  tokenize          the tokens and ids of texts
  score             how likely a model finds sentences
  fill_mask         the words that a model predicts for [MASK]
  finetune          a model trained on labeled examples
  Model             a network with its config, parameters and vocabulary

For a training loop of your own (parameters are nested dicts, and all functions are pure):

  init              random parameters
  rows              texts as rows for the encoder
  batches           masked and paired rows of prepared text
  encode            the hidden states of rows
  pooler_output     the pooler's output, which classifiers read
  mlm_logits        logits over the vocabulary
  sop_logits        logits of the order of two segments
  pretraining_loss  the loss of masked words and sentence order
  dropout_keys      one dropout key per row
  Config            all fields of a run
  ModelConfig       the size of a network
  PhaseConfig       one phase of a training

Every error that a user can cause is one of these, with a message of one line:

  AlbertError       the base of them all
  ConfigError       wrong usage, or a config that contradicts itself or the data
  DataError         a corpus, vocabulary or text that cannot be used
  CheckpointError   a checkpoint, model or export that cannot be read or written
  NumericsError     losses that stay non-finite
  PeerError         another process is gone, or memory ran out
  StorageError      a disk or bucket that is full, missing or not writable
  Stopped           a signal ended the run after its state was saved

`help(albert_jax.predict)` explains one of them. They are those of `albert_jax.api`, which is
imported when one of them is first used, so importing the package loads nothing heavy.
"""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from albert_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from albert_jax.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """A public name, imported on first use."""
    if name == "__all__":
        return __dir__()
    # Python asks for a submodule here before it imports it, which must not load the public names.
    # A folder that an earlier version left behind without modules has no origin.
    spec = PathFinder.find_spec(f"albert_jax.{name}", __path__)  # noqa: F405
    if not name.startswith("_") and (spec is None or spec.origin is None):
        api = importlib.import_module("albert_jax.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module 'albert_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(["__version__", *importlib.import_module("albert_jax.api").__all__])
