"""How well an LLM goes with a TTS, before the fit: how both cut the same texts, and what the layer probe found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from audio_projection.alignment.align import Overlap, align
from audio_projection.text.token_spans import byte_spans

if TYPE_CHECKING:
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.tts.model import Qwen3TTS

SAMPLE = 1000
"""Most texts whose tokens are counted."""
ALIKE = 0.8
"""From this share of one-to-one tokens on, two tokenizers are called alike."""
ENOUGH = 20
"""From this number of unseen tokens on, their share says something."""
RIGHT = 0.9
"""From this share of right text embeddings on, a layer is said to tell its tokens."""


@dataclass(frozen=True)
class TokenMatch:
    """How the two tokenizers cut the same texts; all but `texts` and `llm_tokens` count tokens of the TTS."""

    texts: int
    llm_tokens: int
    tts_tokens: int
    one_to_one: int  # that are exactly one LLM token
    one_to_many: int  # that share one LLM token with other TTS tokens
    many_to_one: int  # that overlap several LLM tokens

    def share(self, count: int) -> float:
        """A count as a share of the TTS's tokens."""
        return count / max(1, self.tts_tokens)


@dataclass(frozen=True)
class Compatibility:
    """The report that comes before a fit."""

    match: TokenMatch
    vocabulary: int  # tokens that the LLM knows
    width: int  # of one of its states
    probe: Mapping[str, Any]  # the layer probe's report; empty without a probe

    def to_json(self) -> dict[str, Any]:
        """The entry `measurements.compatibility` of projector.json."""
        return {**asdict(self.match), "vocabulary": self.vocabulary, "width": self.width, "advice": self.advice}

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        match = self.match
        kinds = (
            f"{match.share(match.one_to_one):.1%} are one LLM token (one-to-one)",
            f"{match.share(match.one_to_many):.1%} share one with others (one-to-many)",
            f"{match.share(match.many_to_one):.1%} are several (many-to-one)",
        )
        yield (
            f"compatibility: {match.texts:,} texts are {match.llm_tokens:,} tokens of the LLM and "
            f"{match.tts_tokens:,} of the TTS; of these {', '.join(kinds)}"
        )
        yield (
            f"compatibility: the LLM's vocabulary over its width is {self.vocabulary:,} / {self.width:,} = "
            f"{self.vocabulary / self.width:.1f}"
        )
        if self.probe:
            layers = ", ".join(f"{layer}: {_in_words(result)}" for layer, result in self.probe["layers"].items())
            yield f"compatibility: text embeddings right by layer, on held-out texts: {layers}"
        yield f"compatibility: {self.advice}"

    @property
    def advice(self) -> str:
        """One sentence on what to do."""
        alike = self.match.share(self.match.one_to_one)
        if alike < ALIKE:
            return (
                f"the tokenizers cut text too differently for a clear voice ({alike:.0%} one-to-one): take an LLM "
                "whose tokens are more like the TTS's, or the residual projector (projector.kind=residual)"
            )
        if not self.probe:
            return "the tokenizers go together; the layer was given, and llm.layers=probe would compare a few"
        chosen = self.probe["chosen"]
        result = self.probe["layers"][str(chosen)]
        if result["nearest_row"] < RIGHT:
            return (
                f"layer {chosen}, the best, tells only {result['nearest_row']:.0%} of its tokens to a linear map: try "
                "projector.kind=mlp, or llm.layers=[0,last] projector.mix=concat; both are larger"
            )
        if result.get("unseen_tokens", 0) >= ENOUGH and result["unseen"] < RIGHT:
            return (
                f"layer {chosen} suits, but of the tokens that it never met only {result['unseen']:.0%} come out "
                "right: give it more and more varied texts (data.texts, fit.tokens), or fit.refine=softmax"
            )
        return f"they go together well: layer {chosen}, and a fit from text alone should be understood"


def compare(llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str], probe: Mapping[str, Any]) -> Compatibility:
    """The report on an LLM and a TTS, by some of the texts and the layer probe's report, if there is one."""
    match = match_tokens(llm, tts, texts[:SAMPLE])
    return Compatibility(match, len(llm.tokenizer), llm.hidden_size, probe)


def match_tokens(llm: LanguageModel, tts: Qwen3TTS, texts: Sequence[str]) -> TokenMatch:
    """Counts the tokens of the texts by how LLM and TTS cut them; nothing is computed but tokens."""
    kinds: Counter[str] = Counter()
    llm_tokens = tts_tokens = 0
    for text in texts:
        ids, (tts_ids, tts_spans) = llm.tokenize(text), tts.tokenize(text)
        kinds.update(map(_kind, align(byte_spans(llm.tokenizer, ids, text), tts_spans)))
        llm_tokens, tts_tokens = llm_tokens + len(ids), tts_tokens + len(tts_ids)
    counts = (kinds["one_to_one"], kinds["one_to_many"], kinds["many_to_one"])
    return TokenMatch(len(texts), llm_tokens, tts_tokens, *counts)


def _kind(overlap: Overlap) -> str:
    if len(overlap.tokens) > 1:
        return "many_to_one"
    return "one_to_many" if overlap.turn else "one_to_one"


def _in_words(result: Mapping[str, float]) -> str:
    """One layer's shares: of all tokens, of those that the probe's regression met, of those that it never met."""
    share = f"{result['nearest_row']:.1%}"
    if "unseen" not in result:
        return share
    seen = f"seen {result['seen']:.1%}, " if "seen" in result else ""
    return f"{share} ({seen}unseen {result['unseen']:.1%} of {result['unseen_tokens']})"
