from audio_projection.cli import launch

launch("train")
