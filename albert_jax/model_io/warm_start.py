"""Parameters of one structure as the start of another: sharing, depth, vocabulary and heads change.

A deep model starts from a shallow one as in the paper: shared parameter sets serve any number of
layers, and a layer with a set of its own takes that of the layer at the same relative depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model import sharing
from albert_jax.model.init import init_params
from albert_jax.model_io import directories, run_record
from albert_jax.model_io import model as models
from albert_jax.model_io.model import Model
from albert_jax.model_io.parameter_names import OPTIONAL_MODULES, Params
from albert_jax.model_io.weights import Weights
from albert_jax.tree import flatten, unflatten

_FIXED_FIELDS = (
    "embedding_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "type_vocab_size",
    "inner_group_num",
)
"""Fields that must be equal, because the weights would mean something else."""


def initial_params_from(
    source: str, config: ModelConfig, vocabulary: Vocabulary | None, *, seed: int
) -> Params:
    """Start parameters (numpy, float32, all that `config` has) from a run or directory.

    Sharing, groups, depth, vocabulary and the number of positions may differ. Heads that the
    source lacks, positions and tokens that it does not know, and the head of words are initialized
    with `seed`.
    Raises CheckpointError if the source cannot be read or has another width.
    """
    loaded = models.load(source) if run_record.is_run(source) else directories.read(source)
    return fit(loaded, config, vocabulary, seed=seed, where=source)


def fit(
    loaded: Model | Weights,
    target: ModelConfig,
    vocabulary: Vocabulary | None,
    *,
    seed: int,
    where: str = "--init",
) -> Params:
    """The loaded parameters as the start of `target` (see initial_params_from)."""
    source, params = loaded.config, loaded.params
    for name in _FIXED_FIELDS:
        old, new = getattr(source, name), getattr(target, name)
        if old != new:
            raise CheckpointError(
                f"{where} has {name} {old}, the config {new}: only sharing, depth, positions and "
                "vocabulary can change: set the same value"
            )
    matching, known = None, getattr(loaded, "fingerprint", None)
    if loaded.vocabulary is None and vocabulary is not None and known is not None:
        run_record.check_vocabulary(vocabulary, known, "the config's vocabulary", where)
    if loaded.vocabulary is not None and vocabulary is not None:
        if loaded.vocabulary.fingerprint != vocabulary.fingerprint:
            matching = matching_ids(loaded.vocabulary, vocabulary)
    if matching is None and source.vocab_size != target.vocab_size:
        raise ConfigError(
            f"{where} has {source.vocab_size} tokens, the config {target.vocab_size}, and one of "
            "them comes without its vocabulary: give it"
        )
    fresh = init_params(target, seed)
    tree = {name: params[name] for name in ("embeddings", "encoder")}
    heads = [module for module in OPTIONAL_MODULES if module in fresh]
    tree |= {module: params.get(module, fresh[module]) for module in heads}
    if "word_head" in fresh:  # Nothing tells whether the words of the source are the same.
        tree["word_head"] = fresh["word_head"]
    tree = regroup(tree, source, target)
    flat, new = {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}, flatten(fresh)
    path = "embeddings/position_embeddings/embedding"
    flat[path] = np.concatenate([flat[path], new[path][len(flat[path]) :]])[: len(new[path])]
    if matching is not None:
        tables = ["embeddings/word_embeddings/embedding"]
        tables += ["mlm_head/bias"] if "mlm_head" in params else []
        for path in tables:
            rows = np.array(new[path])
            for i, ids in enumerate(matching):
                if ids:
                    rows[i] = flat[path][ids].mean(0)
            flat[path] = rows
    return unflatten({path: np.array(flat[path], np.float32) for path in new})


def regroup(tree: Mapping[str, Any], source: ModelConfig, target: ModelConfig) -> Params:
    """Parameters of structure `source` laid out for `target`.

    Each parameter set of the target is that of the first block that uses it. Going from shared
    to separate sets changes nothing that the network computes.
    """
    inner = target.inner_group_num
    old_depth, new_depth = source.num_hidden_layers, target.num_hidden_layers
    chosen = {}
    for sublayer, count in zip(("attention", "ffn"), sharing.sets(target), strict=True):
        old = getattr(sharing.table(source), sublayer)
        new = getattr(sharing.table(target), sublayer)
        # A group that no layer uses (because of rounding) still has parameters.
        blocks = [new.index(number) if number in new else 0 for number in range(count)]
        # The source's block at the same relative depth.
        blocks = [n // inner * old_depth // new_depth * inner + n % inner for n in blocks]
        chosen[sublayer] = np.array([old[n] for n in blocks])
    flat = {}
    for path, leaf in flatten(tree).items():
        top, sublayer, *_ = path.split("/")
        flat[path] = np.asarray(leaf)[chosen[sublayer]] if top == "encoder" else leaf
    return unflatten(flat)


def matching_ids(old: Vocabulary, new: Vocabulary) -> list[list[int]]:
    """For each token of the new vocabulary the ids of the old one that stand for it.

    Special tokens match by their role, shared tokens by their text, and others by how the old
    vocabulary tokenizes their text, which may yield no ids.
    """
    roles = ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
    special = {getattr(new, role): getattr(old, role) for role in roles}
    if isinstance(old, IdRange) and isinstance(new, IdRange):  # Ids without text keep their sense.
        same = set(range(min(old.size, new.size))) - set(special) - set(special.values())
        numbers = {id: id for id in same} | {id: other for id, other in special.items() if id >= 0}
        return [[numbers[i]] if i in numbers else [] for i in range(new.size)]
    old_ids = {old.id_to_token(i): i for i in range(old.size)}
    tokens = [new.id_to_token(i) for i in range(new.size)]
    encoded = old.encode([token.replace(SPACE, " ").removeprefix("##") for token in tokens])
    matching = []
    for i, token in enumerate(tokens):
        if i in special or token in old_ids:
            id = special[i] if i in special else old_ids[token]
            matching.append([id] if id >= 0 else [])
            continue
        ids = [int(n) for n in encoded[i] if n != old.unk_id]
        if len(ids) > 1 and ids[0] == old_ids.get(SPACE) and not token.startswith(SPACE):
            ids = ids[1:]  # The tokenizer puts a word mark in front that the token lacks.
        matching.append(ids)
    return matching
