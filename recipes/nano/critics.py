"""Critics of the decoder: they tell its sound from the teacher's, each in spectra of one resolution.

Multi-resolution STFT discriminators with least-squares losses and feature matching, as in EnCodec (Defossez et al.,
2022), at toy size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

WINDOWS = (2048, 1024, 512)
CHANNELS = 24


class Critic(nn.Module):
    """Complex spectra of one window length, looked at by convolutions over time and frequency."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        inner = [(CHANNELS, CHANNELS, (3, 9), (1, 2), (1, 4))] * 3 + [(CHANNELS, CHANNELS, (3, 3), (1, 1), (1, 1))]
        shapes = [(2, CHANNELS, (3, 9), (1, 2), (1, 4)), *inner]
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, k, s, p)) for a, b, k, s, p in shapes)
        self.verdict = weight_norm(nn.Conv2d(CHANNELS, 1, (3, 3), padding=(1, 1)))

    def forward(self, samples: Tensor) -> list[Tensor]:
        """Samples (B, S) -> each layer's features; the last one is the verdict, near 1 for the teacher's sound."""
        spectrum = torch.stft(samples, self.size, self.size // 4, window=self.window, return_complex=True)
        x = torch.stack((spectrum.real, spectrum.imag), 1).transpose(2, 3) / self.size**0.5
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.verdict(x)]


class Critics(nn.Module):
    """One for each resolution; all losses are their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(Critic(size) for size in WINDOWS)

    def own_loss(self, made: Tensor, true: Tensor) -> Tensor:
        """What the critics minimise: 1 for the teacher's samples (B, S), 0 for the decoder's, which get no gradient."""
        verdicts = [critic(torch.cat((made.detach(), true)))[-1].chunk(2) for critic in self.critics]
        return sum(fake.square().mean() + (1 - real).square().mean() for fake, real in verdicts) / len(verdicts)

    def losses(self, made: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder minimises: being told apart, and the distance of the features in parts of their size."""
        fooling, matching = [], []
        for critic in self.critics:
            *features, verdict = critic(torch.cat((made, true)))
            fooling.append((1 - verdict.chunk(2)[0]).square().mean())
            for fake, real in (each.chunk(2) for each in features):
                matching.append((fake - real.detach()).abs().mean() / real.detach().abs().mean().clamp_min(1e-4))
        return torch.stack(fooling).mean(), torch.stack(matching).mean()
