"""The server in operation: how it starts and ends, what it counts and tells about itself."""
