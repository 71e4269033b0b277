"""What eSpeak NG carries over from one text to the next, and its interface cannot reset.

The flutter of the pitch runs on from sentence to sentence, so a text sounds a little different
each time. A worker that takes over from a dead one must make the same samples again, so these
variables are set back before every text. They are found by name in the library's symbol table.
"""

import ctypes as c
import struct
from collections.abc import Mapping
from pathlib import Path

# Of wavegen.c and klatt.c. Compilers append a number to the names of static locals.
_VARIABLES = ("Flutter_ix", "cycle_count", "wave_flag", "echo_buf", "time_count", "kt_frame")
# The automatic gain of voices that are louder than the rest; 256 is none.
_GAIN, _NO_GAIN = "agc", 256
_SONIC = "sonicSpeedupStream"
# Of a variant that asks for an intonation of its own; no other voice takes it back.
_TONE = "option_tone_flags"
# The voice that was set last, and where its pitch and the range of that are in it; 4096 is 1 Hz.
_VOICE, _PITCH_AT, _RANGE_AT = "voicedata", 64, 68
_LOWEST = 25 << 12  # the library's own limit, which it forgets where a pitch begins
_ANCHOR = "espeak_Initialize"
_SYMTAB, _OBJECT, _FUNCTION = 2, 1, 2


class HiddenState:
    def __init__(self, lib: c.CDLL, base: int, symbols: Mapping[str, tuple[int, int]]) -> None:
        self._lib = lib
        self._variables = [(base + symbols[name][0], symbols[name][1]) for name in _VARIABLES]
        self._gain = c.c_int.from_address(base + symbols[_GAIN][0])
        self._tone = c.c_int.from_address(base + symbols[_TONE][0])
        self._sonic = c.c_void_p.from_address(base + symbols[_SONIC][0])
        voice = base + symbols[_VOICE][0]
        self._pitch = c.c_int.from_address(voice + _PITCH_AT)
        self._range = c.c_int.from_address(voice + _RANGE_AT)
        self._libc = c.CDLL(None)

    def widest_range(self, pitch: int) -> int:
        """The RANGE with which no sound begins below 25 Hz, where the harmonics overrun a table.

        Source: SetPitch2 of synthesize.c; its table for ``pitch`` is nowhere below 64 + pitch.
        """
        lowered = self._pitch.value * (64 + pitch) // 128
        return 50 + 50 * (lowered - _LOWEST) // (18 * max(self._range.value, 1))

    def reset_voice(self) -> None:
        """Call before each change of the voice."""
        self._tone.value = 0

    def reset(self) -> None:
        """As in a process that has not spoken yet. Call before each text."""
        for address, size in self._variables:
            c.memset(address, 0, size)
        self._gain.value = _NO_GAIN
        self._lib.espeak_ng_SetRandSeed(c.c_long(1))
        self._libc.srand(1)  # whispering and the Klatt variants
        if self._sonic.value:
            self._lib.sonicDestroyStream(c.c_void_p(self._sonic.value))
            self._sonic.value = None


def find(lib: c.CDLL, path: str) -> HiddenState | None:
    """None when the library is not ELF or is stripped: then texts are not reproducible."""
    symbols = _symbols(Path(path).read_bytes())
    if not {*_VARIABLES, _GAIN, _TONE, _SONIC, _VOICE, _ANCHOR} <= symbols.keys():
        return None
    anchor = c.cast(lib[_ANCHOR], c.c_void_p).value or 0
    return HiddenState(lib, anchor - symbols[_ANCHOR][0], symbols)


def _symbols(image: bytes) -> dict[str, tuple[int, int]]:
    """Name, without a compiler's number: (address, size), of 64-bit little-endian ELF."""
    if image[:6] != b"\x7fELF\x02\x01":
        return {}
    (sections_at,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQII", image, sections_at + i * size) for i in range(count)]
    found = {}
    for _, kind, _, _, offset, length, link, _ in headers:
        if kind != _SYMTAB:
            continue
        names = headers[link][4]
        table = image[offset : offset + length]
        for name_at, info, _, _, address, extent in struct.iter_unpack("<IBBHQQ", table):
            if info & 0xF in (_OBJECT, _FUNCTION) and extent:
                start = names + name_at
                name = image[start : image.index(b"\0", start)].decode(errors="replace")
                found[name.split(".")[0]] = (address, extent)
    return found
