"""The tokenizer of the nano language model: Llama-3's manner, at toy size, and not quite that of the TTS.

A byte-level BPE with special tokens and chat template in the style of Llama-3.  Its merges begin as the
TTS's, as those of the real models begin alike, and end earlier: a tenth of its
tokens are no token of the TTS's, a hundred times more than with the real pair, so that alignment is no
identity.
"""

import json
from pathlib import Path

import bpe
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS, HEADER, END_HEADER, EOT, PAD = SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|pad_id|>",
)
# Llama-3's word pattern: contractions, words with the sign or space before them, up to three digits, signs, spaces.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'].strip() }}"
    "{{ '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def shared_tokenizer(tts: Path, share: float) -> PreTrainedTokenizerFast:
    """Every byte and the first merges of the TTS in this folder, `share` of them all."""
    _, merges = bpe.read(tts)
    pairs = merges[: round(share * len(merges))]
    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in pairs)]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    # the start token is put before plain text
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOT,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """In files that older readers know too: the template inside the configuration, the class by its old name."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def byte_spans(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """(start, end) of each token; in byte-level BPE a character of a token stands for a byte."""
    ends = [0]
    for token in tokenizer.encode(text, add_special_tokens=False).tokens:
        ends.append(ends[-1] + len(token))
    return list(zip(ends, ends[1:], strict=False))


def agreement(tokenizer: PreTrainedTokenizerFast, folder: Path, texts: list[str]) -> str:
    """How the tokens lie against those of the TTS (its vocab.json and merges.txt), in byte spans."""
    # The TTS's own pattern differs from this one in digits alone: single ones.
    tts = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tts.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS.replace(r"\p{N}{1,3}", r"\p{N}")), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    total = same = tts_total = split = 0
    for text in texts:
        ours, theirs = byte_spans(tokenizer.backend_tokenizer, text), byte_spans(tts, text)
        starts, agreed = {start for start, _ in ours}, set(ours) & set(theirs)
        total, same, tts_total = total + len(ours), same + len(agreed), tts_total + len(theirs)
        split += sum(any(start < inner < end for inner in starts) for start, end in theirs)
    return (
        f"{100 * (1 - same / total):.1f} % of {total} tokens are not one-to-one with the TTS's; "
        f"{100 * split / tts_total:.1f} % of the TTS's {tts_total} tokens span several"
    )
