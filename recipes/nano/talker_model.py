"""The talker and code predictor as they are trained, under the official parameter names.

Lean on purpose: one causal pass over right-padded batches, nothing cached.  What is trained here is read by the
package's own Qwen3-TTS unchanged.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from codebooks import ENTRIES, GROUPS, QUARTERS
from teacher import PHONES
from text_ids import TextIds
from torch import Tensor, nn

VOCABULARY = ENTRIES + 1_024
NONE = -1
PAD, BOS, EOS = ENTRIES + 100, ENTRIES + 101, ENTRIES + 102
THINK, NOTHINK, THINK_BOS, THINK_EOS = ENTRIES + 106, ENTRIES + 107, ENTRIES + 108, ENTRIES + 109
ENGLISH, SPEAKER = ENTRIES + 2, ENTRIES + 200
OPENING_CODES = [NONE] * 3 + [THINK, THINK_BOS, ENGLISH, THINK_EOS, SPEAKER, PAD]
"""The codec channel beside `TextIds.opening`."""
EPSILON = 1e-6
ROPE_THETA = 10_000.0
TEXT_WIDTH = 320
"""Width of the text table; `TextProjection` makes the talker's of it."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of one Qwen3 stack."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int


TALKER = Sizes(hidden=320, layers=6, intermediate=768, heads=6, kv_heads=2, head=64)
PREDICTOR = Sizes(hidden=320, layers=1, intermediate=1024, heads=6, kv_heads=2, head=64)
"""As wide as the talker, so that the official small_to_mtp_projection is absent.  One layer: the sum of a residual
quantiser's codes is linear, and each further layer is walked fifteen times a frame."""
GUIDED = (1, 2, 3)
"""Layers whose first head is shown which text is being spoken."""


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, EPSILON)


def rotary(length: int, head: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, head) of positions 0 to length - 1."""
    frequencies = ROPE_THETA ** (-torch.arange(0, head, 2, device=device).float() / head)
    angles = torch.outer(torch.arange(length, device=device).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines


class Attention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        wide, narrow = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
        self.q_proj = nn.Linear(sizes.hidden, wide, bias=False)
        self.k_proj = nn.Linear(sizes.hidden, narrow, bias=False)
        self.v_proj = nn.Linear(sizes.hidden, narrow, bias=False)
        self.o_proj = nn.Linear(wide, sizes.hidden, bias=False)
        self.q_norm, self.k_norm = Norm(sizes.head), Norm(sizes.head)

    def forward(self, x: Tensor, place: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, S, H) -> out (B, S, H), the first head's queries and keys (B, S, head)."""
        size, length, _ = x.shape
        heads, head = self.sizes.heads, self.sizes.head
        q = self.q_norm(self.q_proj(x).view(size, length, -1, head))
        k = self.k_norm(self.k_proj(x).view(size, length, -1, head))
        v = self.v_proj(x).view(size, length, -1, head).transpose(1, 2)
        both = rotate(torch.cat((q, k), 2).transpose(1, 2), *place)
        q, k = both[:, :heads], both[:, heads:]
        repeats = heads // self.sizes.kv_heads
        wide = [each.repeat_interleave(repeats, 1) for each in (k, v)]
        out = F.scaled_dot_product_attention(q, *wide, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2)), q[:, 0], k[:, 0]


class Feedforward(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.down_proj = nn.Linear(sizes.intermediate, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(sizes), Feedforward(sizes)
        self.input_layernorm, self.post_attention_layernorm = Norm(sizes.hidden), Norm(sizes.hidden)

    def forward(self, x: Tensor, place: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        attended, query, key = self.self_attn(self.input_layernorm(x), place)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), query, key


@dataclass
class Passed:
    """What a stack made of its input."""

    hidden: Tensor
    """(B, S, H), normed."""
    states: list[Tensor] = field(default_factory=list)
    """After each layer (B, S, H)."""
    heads: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Queries and keys (B, S, head) of each layer's first head."""


class Stack(nn.Module):
    """A Qwen3 decoder without token embedding."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = Norm(sizes.hidden)

    def forward(self, x: Tensor) -> Passed:
        """x (B, S, H)."""
        place = rotary(x.shape[1], self.sizes.head, x.device)
        passed = Passed(x)
        for layer in self.layers:
            x, query, key = layer(x, place)
            passed.states.append(x)
            passed.heads.append((query, key))
        passed.hidden = self.norm(x)
        return passed


class TextProjection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear_fc1, self.linear_fc2 = nn.Linear(TEXT_WIDTH, TEXT_WIDTH), nn.Linear(TEXT_WIDTH, TALKER.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(F.silu(self.linear_fc1(x)))


class Predictor(nn.Module):
    """Codebooks 1 and up of a frame, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Stack(PREDICTOR)
        self.model.codec_embedding = nn.ModuleList(nn.Embedding(ENTRIES, TALKER.hidden) for _ in range(GROUPS - 1))
        self.lm_head = nn.ModuleList(nn.Linear(PREDICTOR.hidden, ENTRIES, bias=False) for _ in range(GROUPS - 1))

    def joined(self, rest: Tensor) -> tuple[Tensor, Tensor]:
        """All embedding tables as one (15 * 512, H), and where in it the codes `rest` (..., 15) stand."""
        tables = torch.cat([table.weight for table in self.model.codec_embedding])
        return tables, rest + ENTRIES * torch.arange(GROUPS - 1, device=rest.device)


class Talker(nn.Module):
    def __init__(self, ids: TextIds) -> None:
        super().__init__()
        self.ids = ids
        self.model = Stack(TALKER)
        self.model.text_embedding = nn.Embedding(ids.vocabulary, TEXT_WIDTH)
        self.model.codec_embedding = nn.Embedding(VOCABULARY, TALKER.hidden)
        self.text_projection = TextProjection()
        self.codec_head = nn.Linear(TALKER.hidden, VOCABULARY, bias=False)
        self.code_predictor = Predictor()
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter, std=0.05)
            elif parameter.ndim == 2 and name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=0.02 / TALKER.layers**0.5)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def begin_from(self, source: Tensor, size: float = 0.5) -> None:
        """Start the text table as an LLM's embeddings (tokens, width): their leading components, `size` on average."""
        centred = source - source.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        table = centred @ vectors.flip(1)[:, :TEXT_WIDTH]
        with torch.no_grad():
            self.model.text_embedding.weight.copy_(table * size / table.square().mean().sqrt())

    def text_embeddings(self, text: Tensor) -> Tensor:
        """The text embeddings that a projector imitates: ids (B, S) -> (B, S, H)."""
        return self.text_projection(self.model.text_embedding(text))

    def opening(self) -> Tensor:
        """The embeddings (1, 9, H) before the text: assistant's turn, English, the speaker."""
        text, codec = torch.tensor([[self.ids.opening], [OPENING_CODES]], device=self.codec_head.weight.device)
        return self.text_embeddings(text) + self.code_rows(codec, codec.new_full((*codec.shape, GROUPS - 1), NONE))

    def code_rows(self, codec: Tensor, rest: Tensor) -> Tensor:
        """Sum of a frame's code embeddings: codec (B, S) and rest (B, S, 15), NONE where empty -> (B, S, H)."""
        first = self.model.codec_embedding(codec.clamp_min(0)) * (codec != NONE)[..., None]
        tables, places = self.code_predictor.joined(rest.clamp_min(0))
        bags = F.embedding_bag(places.flatten(0, 1), tables, mode="sum")
        return first + bags.view_as(first) * (rest[..., :1] != NONE)

    def predict_rest(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """hidden (M, H), codes (M, 16) -> logits (M, 15, 512)."""
        tables, places = self.code_predictor.joined(codes[:, 1:])
        first = self.model.codec_embedding(codes[:, 0])
        inputs = torch.cat((hidden[:, None], first[:, None], F.embedding(places[:, :-1], tables)), 1)
        out = self.code_predictor.model(inputs).hidden[:, 1:]
        heads = torch.stack([head.weight for head in self.code_predictor.lm_head])
        return (out.transpose(0, 1) @ heads.mT).transpose(0, 1)


class PhoneHead(nn.Module):
    """What only training needs: names the phones of the frame to come."""

    def __init__(self) -> None:
        super().__init__()
        self.phones = nn.Linear(TALKER.hidden, QUARTERS * len(PHONES))

    def forward(self, state: Tensor) -> Tensor:
        """State (M, H) -> logits (M, 4, phones) of the phone in each quarter of the frame."""
        return self.phones(state).unflatten(-1, (QUARTERS, len(PHONES)))


def with_lessons(talker: Talker, source: Tensor) -> nn.ModuleDict:
    """What a checkpoint holds: the talker, and what only its training needs.

    `anchor` maps the LLM's embeddings `source` (tokens, width) to text embeddings.
    """
    return nn.ModuleDict({"talker": talker, "phones": PhoneHead(), "anchor": nn.Linear(source.shape[1], TALKER.hidden)})
