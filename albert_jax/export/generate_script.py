"""Writes text with this model: python generate.py "a source" ["its next turn" ...] [--rounds N]

Needs torch and transformers, nothing else. The source stands in front of a canvas of [MASK]; each
round writes the places where the model is surest, and the text ends at the first [SEP].
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer


def generate(model, tokenizer, turns, rounds=0):
    """The text that answers a source of one or more turns."""
    setting = model.config.canvas
    places, rounds = setting["places"], rounds or setting["rounds"]
    end, mask = tokenizer.sep_token_id, tokenizer.mask_token_id
    source = []
    for number, turn in enumerate(turns):
        source += ([end] if number else []) + tokenizer.encode(turn, add_special_tokens=False)
    room = setting["length"] - places - 2
    source = torch.tensor([tokenizer.cls_token_id, *source[max(0, len(source) - room) :], end])
    types = torch.tensor([[0] * len(source) + [1] * places])
    canvas = torch.full((places,), mask)
    for step in range(1, rounds + 1):
        with torch.no_grad():
            row = torch.cat([source, canvas])[None]
            logits = model(input_ids=row, token_type_ids=types).logits[0, len(source) :]
        logits[:, [mask, tokenizer.pad_token_id, tokenizer.cls_token_id]] = -torch.inf
        sure, best = logits.log_softmax(-1).max(-1)
        count = int((canvas == mask).sum()) - places * (rounds - step) // rounds
        order = torch.where(canvas == mask, sure, -torch.inf).argsort(descending=True, stable=True)
        canvas[order[:count]] = best[order[:count]]
    ids = canvas.tolist()
    return tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("turns", nargs="+")
    options.add_argument("--rounds", type=int, default=0)
    given, here = options.parse_args(), Path(__file__).parent
    network = AutoModelForMaskedLM.from_pretrained(here).eval()
    print(generate(network, AutoTokenizer.from_pretrained(here), given.turns, given.rounds))
