"""Writes text with this model: python generate.py "a source" ["its next turn" ...] [--steps N]

It needs torch and transformers, nothing else. Behind the source stand [MASK] tokens; each step
writes those of which the model is most confident, and the text ends at the first [SEP].
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer


def generate(model, tokenizer, turns, steps=0):
    """The text that answers a source of one or more turns."""
    settings = model.config.generation
    size, steps = settings["max_target_length"], steps or settings["denoising_steps"]
    end, mask = tokenizer.sep_token_id, tokenizer.mask_token_id
    never = [number for number in tokenizer.all_special_ids if number != end]
    source = []
    for number, turn in enumerate(turns):
        source += ([end] if number else []) + tokenizer.encode(turn, add_special_tokens=False)
    longest = settings["length"] - size - 2
    source = torch.tensor([tokenizer.cls_token_id, *source[max(0, len(source) - longest) :], end])
    types = torch.tensor([[0] * len(source) + [1] * size])
    target = torch.full((size,), mask)
    for step in range(1, steps + 1):
        with torch.no_grad():
            row = torch.cat([source, target])[None]
            logits = model(input_ids=row, token_type_ids=types).logits[0, len(source) :]
        logits[:, never] = -torch.inf
        confidence, best = logits.log_softmax(-1).max(-1)
        count = int((target == mask).sum()) - size * (steps - step) // steps
        ranked = torch.where(target == mask, confidence, -torch.inf)
        order = ranked.argsort(descending=True, stable=True)
        target[order[:count]] = best[order[:count]]
    ids = target.tolist()
    return tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("turns", nargs="+")
    parser.add_argument("--steps", type=int, default=0)
    options, folder = parser.parse_args(), Path(__file__).parent
    network = AutoModelForMaskedLM.from_pretrained(folder).eval()
    print(generate(network, AutoTokenizer.from_pretrained(folder), options.turns, options.steps))
