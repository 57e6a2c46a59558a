from audio_projection.cli import launch

launch("speak")
