"""`python -m audio_projection` is the installed command."""

from audio_projection.cli import main

if __name__ == "__main__":
    main()
