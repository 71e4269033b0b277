"""The name under which the voice lifecycle is documented; the work is in voice_server."""
