"""Stage 9: texts for the projectors, written by the nano language model itself.

    python recipes/nano/texts.py src/audio_projection/nano/llm src/audio_projection/nano/texts.txt

Sampled sentences, a line each, in the letters and stops that the voice has learned; none twice, none of
the sentences kept for evaluation.
"""

import argparse
from pathlib import Path

import torch
from corpus import SPOKEN, clean
from transformers import AutoTokenizer, LlamaForCausalLM


@torch.no_grad()
def sample(model: LlamaForCausalLM, bos: int, size: int, longest: int) -> torch.Tensor:
    """Token ids (size, up to longest) of sampled sentences."""
    start = torch.full((size, 1), bos)
    return model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=True,
        temperature=0.9,
        top_k=0,
        top_p=0.95,
        max_new_tokens=longest,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llm", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sentences", type=int, default=3_000)
    parser.add_argument("--without", type=Path, help="file of sentences that must not be used")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.llm)
    model = LlamaForCausalLM.from_pretrained(arguments.llm, dtype=torch.float32)
    held_out = arguments.without.read_text().lower().splitlines() if arguments.without else []
    seen, lines = set(held_out), []
    while len(lines) < arguments.sentences:
        for text in tokenizer.batch_decode(sample(model, tokenizer.bos_token_id, 200, 40), skip_special_tokens=True):
            text = clean(text)
            if 12 <= len(text) <= 75 and SPOKEN.fullmatch(text) and text.lower() not in seen:
                seen.add(text.lower())
                lines.append(text)
        print(f"{len(lines)} sentences", flush=True)
    arguments.file.write_text("\n".join(lines[: arguments.sentences]) + "\n")


if __name__ == "__main__":
    main()
