"""Realtime sessions: spoken conversations over a WebSocket."""
