"""Sound to players and pipes: whole files, or while it is made."""
