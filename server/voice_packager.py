"""``from server.voice_packager import VoicePackager``, as documented."""

from voice_server.control.facade import VoicePackager

__all__ = ["VoicePackager"]
