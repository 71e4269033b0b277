"""``from server.voice_manager import VoiceManager``, as documented."""

from voice_server.control.facade import VoiceManager

__all__ = ["VoiceManager"]
