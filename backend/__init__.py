"""The name under which profiles and history are documented; the work is in voice_server."""
