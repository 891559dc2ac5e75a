"""Weights of one structure as the start of another: sharing, depth, vocabulary, heads.

Between modes of sharing everything is a gather along the axis of parameter sets, for parameters
and moments alike. A deep model starts from a shallow one as in the paper: where sets are shared
they serve any number of passes, where each pass has its own it takes that of the pass at the same
relative depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model import sharing
from albert_jax.model.init import init_params
from albert_jax.model_io.parameter_names import OPTIONAL_UNITS, Params
from albert_jax.tree import flatten, unflatten

_FIXED = (
    "embedding_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "type_vocab_size",
)
"""What an initialisation cannot change: the weights would mean something else."""


def initial_params_from(
    source: str, config: ModelConfig, vocabulary: Vocabulary | None, *, seed: int
) -> Params:
    """Start weights (numpy, float32, both heads) for `config` from a run or directory.

    Sharing, groups, depth and vocabulary may differ, and more or fewer positions; heads that the
    source lacks, and positions and pieces that it knows nothing of, are drawn anew with `seed`.

    Raises:
      CheckpointError: the source cannot be read, or has another width.
    """
    from albert_jax.model_io import model as loading

    if loading.is_run(source):
        model = loading.load(source)
        structure, params, known = model.config, model.params, model.vocabulary
    else:
        from albert_jax.model_io.native import load_directory

        run_config, params, known = load_directory(source)
        structure = run_config.model
    return fit(params, structure, known, config, vocabulary, seed=seed, where=source)


def fit(
    params: Mapping[str, Any],
    source: ModelConfig,
    known: Vocabulary | None,
    target: ModelConfig,
    vocabulary: Vocabulary | None,
    *,
    seed: int,
    where: str = "--init",
) -> Params:
    """`params` of structure `source` as start of `target` (see initial_params_from)."""
    for name in _FIXED:
        old, new = getattr(source, name), getattr(target, name)
        if old != new:
            raise CheckpointError(
                f"{where} has {name} {old}, the config {new}: only sharing, depth, positions and "
                "vocabulary can change; set the same value"
            )
    fresh = init_params(target, seed)
    same = known is None or vocabulary is None or known.fingerprint == vocabulary.fingerprint
    if same and source.vocab_size != target.vocab_size:
        raise ConfigError(
            f"{where} has {source.vocab_size} pieces, the config {target.vocab_size}, and one of "
            "them comes without its vocabulary: give it"
        )
    found: dict[str, Any] = {
        "embeddings": params["embeddings"],
        "encoder": regroup(params, source, target)["encoder"],
    }
    found |= {unit: params.get(unit, fresh[unit]) for unit in OPTIONAL_UNITS}
    flat, new = {path: np.asarray(leaf) for path, leaf in flatten(found).items()}, flatten(fresh)
    places = "embeddings/position_embeddings/embedding"
    kept = min(len(flat[places]), len(new[places]))
    flat[places] = np.concatenate([flat[places][:kept], new[places][kept:]])
    if not same:
        assert known is not None and vocabulary is not None
        rows = sub_pieces(known, vocabulary)
        for path in ("embeddings/word_embeddings/embedding", "mlm_head/bias"):
            if path == "mlm_head/bias" and "mlm_head" not in params:
                continue
            flat[path] = _averaged(flat[path], new[path], rows)
    return unflatten({path: np.array(flat[path], np.float32) for path in new})


def regroup(tree: Mapping[str, Any], source: ModelConfig, target: ModelConfig) -> Params:
    """A tree laid out like the parameters (or moments) of `source`, laid out for `target`.

    Each parameter set of the target is that of the first pass which uses it. Going from shared
    to not shared changes nothing that the network computes.
    """
    picks = {name: _pick(source, target, name) for name in ("attention", "ffn")}
    flat = {}
    for path, leaf in flatten(tree).items():
        parts = path.split("/")
        flat[path] = np.asarray(leaf)[picks[parts[1]]] if parts[0] == "encoder" else leaf
    return unflatten(flat)


def _pick(source: ModelConfig, target: ModelConfig, sublayer: str) -> np.ndarray:
    """For each parameter set of the target the source's set."""
    old = getattr(sharing.table(source), sublayer)
    new = getattr(sharing.table(target), sublayer)
    attention, ffn = sharing.sets(target)
    count = attention if sublayer == "attention" else ffn
    first = {}
    for number, chosen in enumerate(new):
        first.setdefault(chosen, number)
    # A group that no layer uses (rounding) still has parameters: it takes the first set.
    return np.array([old[_same_depth(first.get(i, 0), source, target)] for i in range(count)])


def _same_depth(number: int, source: ModelConfig, target: ModelConfig) -> int:
    """The source's pass at the relative depth of the target's pass `number`."""
    if source.inner_group_num == target.inner_group_num:
        layer, block = divmod(number, target.inner_group_num)
        layer = layer * source.num_hidden_layers // target.num_hidden_layers
        return layer * source.inner_group_num + block
    old = source.num_hidden_layers * source.inner_group_num
    return number * old // (target.num_hidden_layers * target.inner_group_num)


def sub_pieces(known: Vocabulary, vocabulary: Vocabulary) -> list[list[int]]:
    """For each piece of the new vocabulary the ids of the old one that stand for it.

    Special pieces go by their role, shared pieces by their text, others by how the old
    vocabulary writes their text; empty where it cannot.
    """
    roles = ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
    special = {getattr(vocabulary, role): getattr(known, role) for role in roles}
    old = {known.id_to_token(i): i for i in range(known.size)}
    pieces = [vocabulary.id_to_token(i) for i in range(vocabulary.size)]
    texts = [piece.replace(SPACE, " ").removeprefix("##") for piece in pieces]
    written = known.encode(texts)
    bare = old.get(SPACE)
    rows = []
    for i, piece in enumerate(pieces):
        if i in special:
            rows.append([special[i]] if special[i] >= 0 else [])
        elif piece in old:
            rows.append([old[piece]])
        else:
            ids = [int(n) for n in written[i] if n != known.unk_id]
            if len(ids) > 1 and ids[0] == bare and not piece.startswith(SPACE):
                ids = ids[1:]  # The word mark that encoding puts in front is not in this piece.
            rows.append(ids)
    return rows


def _averaged(old: np.ndarray, fresh: np.ndarray, rows: list[list[int]]) -> np.ndarray:
    result = np.array(fresh)
    for i, ids in enumerate(rows):
        if ids:
            result[i] = old[ids].mean(0) if len(ids) > 1 else old[ids[0]]
    return result
