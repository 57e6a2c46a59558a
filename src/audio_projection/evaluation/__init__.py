"""Word error rate, spectral distances and robustness of spoken sentences, beside their controls."""
