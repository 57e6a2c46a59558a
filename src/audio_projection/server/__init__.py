"""The HTTP server: OpenAI's speech, chat and realtime interfaces over one loaded voice."""
