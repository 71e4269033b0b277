"""The paralinguistic tags: sounds that some backends make when the text says ``[laugh]``."""

from __future__ import annotations

from collections.abc import Collection

# One sound a line: the name it is declared by, then every spelling that means it.
SOUNDS: tuple[tuple[str, ...], ...] = (
    ("laugh", "laughs", "laughing", "laughter"),
    ("chuckle", "chuckles", "chuckling"),
    ("giggle", "giggles", "giggling"),
    ("sigh", "sighs", "sighing"),
    ("cough", "coughs", "coughing"),
    ("throat", "clear throat", "clears throat", "clearing throat", "clear_throat", "throat clear"),
    ("sneeze", "sneezes", "sneezing"),
    ("sniff", "sniffs", "sniffing", "sniffle", "sniffles"),
    ("gasp", "gasps", "gasping"),
    ("groan", "groans", "groaning"),
    ("shush", "shushes", "shushing", "shh"),
    ("yawn", "yawns", "yawning"),
    ("cry", "cries", "crying", "sob", "sobs", "sobbing"),
    ("breath", "breathe", "breathes", "breathing", "inhale", "inhales", "exhale", "exhales"),
    ("hum", "hums", "humming"),
    ("whistle", "whistles", "whistling"),
    ("snore", "snores", "snoring"),
    ("hiccup", "hiccups"),
    ("scream", "screams", "screaming"),
    ("gulp", "gulps"),
    ("clap", "claps", "clapping", "applause"),
    ("pause", "long pause", "short pause", "silence"),
)

_SOUND_OF = {spelling: sound[0] for sound in SOUNDS for spelling in sound}
LONGEST_TAG = 40


class Tags:
    """Which bracketed words are sounds, and how the backend that ``declared`` some spells them."""

    def __init__(self, declared: Collection[str] = ()) -> None:
        self._spelling: dict[str, str] = {}
        for tag in declared:
            name = _normal(tag)
            self._spelling[name] = tag
            self._spelling.setdefault(_SOUND_OF.get(name, name), tag)

    def spelling(self, inner: str) -> str | None:
        """What to write between the brackets instead of ``inner``: the backend's spelling of the
        sound, "" if it does not make it. None: ``inner`` is no sound, but ordinary text."""
        name = _normal(inner)
        declared = self._spelling.get(name)
        if declared is not None:
            return declared
        sound = _SOUND_OF.get(name)
        return None if sound is None else self._spelling.get(sound, "")


def _normal(tag: str) -> str:
    return " ".join(tag.strip().strip("[]<>").lower().split())
