"""Stage: texts for the projectors, written by the nano language model itself.

    python recipes/nano/texts.py src/audio_projection/nano/llm src/audio_projection/nano/texts.txt

Sampled sentences, a line each, in the letters and stops that the voice has learned; none twice, none of
the sentences kept for evaluation.
"""

import argparse
from pathlib import Path

import torch
from sentences import SPOKEN, clean, held_out_keys, key
from transformers import AutoTokenizer, LlamaForCausalLM


@torch.no_grad()
def sample(model: LlamaForCausalLM, bos: int, turn: int, size: int, longest: int) -> torch.Tensor:
    """Token ids (size, up to longest) of sampled sentences, none of them a turn of a chat."""
    start = torch.full((size, 1), bos)
    return model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=True,
        temperature=0.9,
        top_k=0,
        top_p=0.95,
        max_new_tokens=longest,
        suppress_tokens=[turn],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llm", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sentences", type=int, default=3_000)
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="files of sentences not to be used")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.llm)
    model = LlamaForCausalLM.from_pretrained(arguments.llm, dtype=torch.float32)
    taken, lines = held_out_keys(arguments.without), []
    turn = tokenizer.convert_tokens_to_ids("<|start_header_id|>")
    rounds = 0
    while len(lines) < arguments.sentences:
        rounds += 1
        if rounds > 10 and len(lines) < rounds:
            raise SystemExit(f"{len(lines)} usable sentences in {rounds - 1} rounds: the model must learn more first")
        made = sample(model, tokenizer.bos_token_id, turn, 200, 40)
        for text in map(clean, tokenizer.batch_decode(made, skip_special_tokens=True)):
            if 12 <= len(text) <= 75 and SPOKEN.fullmatch(text) and key(text) not in taken:
                taken.add(key(text))
                lines.append(text)
        print(f"{len(lines)} sentences", flush=True)
    arguments.file.write_text("\n".join(lines[: arguments.sentences]) + "\n")
    share = len(lines) / (200 * rounds)
    print(f"{arguments.sentences} sentences in {arguments.file}, {share:.0%} of the sampled ones could be used")


if __name__ == "__main__":
    main()
