"""The names under which the voice packages are documented; the work is in voice_server."""
