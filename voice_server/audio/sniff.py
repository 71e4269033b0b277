"""Says what a file is by its first bytes, so that a demuxer is chosen by us and never guessed.

The list is the whole of what the server opens. Playlists (HLS, DASH, SDP, ffconcat) are not on
it: each names other files or addresses, which the demuxer would then read.
"""

from __future__ import annotations

AUDIO_FORMATS = ("mp3", "wav", "m4a", "aac", "ogg", "flac")
VIDEO_FORMATS = ("mp4", "mov", "avi", "webm", "mkv", "flv")
ACCEPTED = ", ".join(name.upper() for name in AUDIO_FORMATS + VIDEO_FORMATS)

HEAD_BYTES = 1 << 20
"""How much of the file ``sniff`` wants: an ID3 tag with a picture can be this long."""

_MOV_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def sniff(head: bytes) -> str | None:
    """The demuxer for a file that begins with ``head``, or None when it is nothing we open."""
    if head[:3] == b"ID3" and len(head) >= 10:
        # A tag before the sound; its length has seven bits a byte (id3.org, ID3v2.4 § 3.1).
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        after = head[10 + size :]
        return sniff(after) if after[:3] != b"ID3" and sniff(after) else "mp3"
    if head[:4] == b"RIFF":
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12])
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    for magic, name in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"FLV\x01", "flv")):
        if head.startswith(magic):
            return name
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[4:8] in _MOV_ATOMS:
        return "mov"
    # MPEG audio and ADTS share their first twelve bits; the layer (0 in ADTS) tells them apart.
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        if head[1] & 0xF6 == 0xF0:
            return "aac"
        if head[1] & 0x06 and head[1] & 0x18 != 0x08:
            return "mp3"
    return None
