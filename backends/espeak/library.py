"""The C library of eSpeak NG 1.52 by ctypes: types, calls and nothing about speech servers.

Source: speak_lib.h of eSpeak NG. Its state is global to the process, so one ``Library`` at most.
"""

import ctypes as c
from collections.abc import Callable
from dataclasses import dataclass

import espeakng_loader
import hidden_state

SAMPLE_RATE = 22_050
SLOWEST, FASTEST = 80, 449  # words a minute; above, it stretches time and loses the end of it
NORMAL_RATE = 175

RATE, VOLUME, PITCH, RANGE, WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
WORD, END = 1, 5  # espeak_EVENT_TYPE
_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_UTF8, _SSML = 1, 0x10
_BUFFER_MS = 60
# Voices whose dictionaries did not come with the library, which then reads memory that is not
# there; and the voices that read their text: a neighbour's, or one of the same sounds.
_WITHOUT_DICTIONARY = {b"gmq/fo": b"gmq/is", b"trk/kaa": b"trk/kk", b"art/xex": b"roa/pt"}


class _EventId(c.Union):
    _fields_ = (("number", c.c_int), ("name", c.c_char_p), ("string", c.c_char * 8))


class _Event(c.Structure):
    _fields_ = (
        ("type", c.c_int),
        ("unique_identifier", c.c_uint),
        ("text_position", c.c_int),
        ("length", c.c_int),
        ("audio_position", c.c_int),
        ("sample", c.c_int),
        ("user_data", c.c_void_p),
        ("id", _EventId),
    )


class _Voice(c.Structure):
    _fields_ = (
        ("name", c.c_char_p),
        ("languages", c.c_void_p),
        ("identifier", c.c_char_p),
        ("gender", c.c_ubyte),
        ("age", c.c_ubyte),
        ("variant", c.c_ubyte),
        ("xx1", c.c_ubyte),
        ("score", c.c_int),
        ("spare", c.c_void_p),
    )


_Callback = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int, c.POINTER(_Event))
_AudioCallback = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, c.c_char_p)


@dataclass(frozen=True)
class InstalledVoice:
    """``languages``: (priority, tag), the smaller the better. ``gender``: 1 male, 2 female."""

    identifier: str
    name: str
    languages: tuple[tuple[int, str], ...]
    gender: int


@dataclass(frozen=True)
class Event:
    """A WORD or the END of a clause. ``position`` counts the text's characters from 0."""

    type: int
    position: int
    length: int
    sample: int


# Takes samples (int16, native order) and the events in them; returns True to stop.
Sink = Callable[[bytes, list[Event]], bool]


class Library:
    def __init__(self) -> None:
        self.data = espeakng_loader.get_data_path()
        path = espeakng_loader.get_library_path()
        self._lib = c.CDLL(path)
        self._lib.espeak_Initialize.argtypes = [c.c_int, c.c_int, c.c_char_p, c.c_int]
        self._lib.espeak_SetVoiceByName.argtypes = [c.c_char_p]
        self._lib.espeak_SetParameter.argtypes = [c.c_int, c.c_int, c.c_int]
        self._lib.espeak_ListVoices.argtypes = [c.c_void_p]
        self._lib.espeak_ListVoices.restype = c.POINTER(c.POINTER(_Voice))
        self._lib.espeak_Synth.argtypes = [
            *(c.c_char_p, c.c_size_t, c.c_uint, c.c_int, c.c_uint, c.c_uint),
            *(c.c_void_p, c.c_void_p),
        ]
        rate = self._lib.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, self.data.encode(), _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"eSpeak NG did not start ({rate}); is its data in {self.data}?")
        self._hidden = hidden_state.find(self._lib, path)
        self._sink: Sink | None = None
        self._failure: BaseException | None = None
        # Kept for ever: the library calls it as long as the process lives.
        self._callback = _Callback(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)
        # 1 is no: what SSML's <audio> names stays unread, and what it encloses is spoken.
        self._refuse_audio = _AudioCallback(lambda _kind, _uri, _base: 1)
        self._lib.espeak_SetUriCallback(self._refuse_audio)
        # Once: listing them again would undo what is changed here.
        self._voices = _entries(self._lib.espeak_ListVoices(None))
        for voice in self._voices:
            if neighbour := _WITHOUT_DICTIONARY.get(voice.identifier):
                voice.identifier = neighbour

    @property
    def raw(self) -> c.CDLL:
        return self._lib

    @property
    def is_reproducible(self) -> bool:
        """The same text and parameters give the same samples, whatever was spoken before."""
        return self._hidden is not None

    def voices(self) -> list[InstalledVoice]:
        return [
            InstalledVoice(
                voice.identifier.decode(),
                voice.name.decode().strip(),
                tuple(_languages(voice.languages)),
                voice.gender,
            )
            for voice in self._voices
        ]

    def set_voice(self, identifier: str) -> bool:
        """False when there is none of that name. Resets nothing else."""
        if self._hidden is not None:
            self._hidden.reset_voice()
        return self._lib.espeak_SetVoiceByName(identifier.encode()) == 0

    def widest_range(self, pitch: int) -> int:
        """The RANGE up to which the voice that is set can speak at this PITCH."""
        return 100 if self._hidden is None else self._hidden.widest_range(pitch)

    def set_parameter(self, parameter: int, value: int) -> None:
        self._lib.espeak_SetParameter(parameter, value, 0)

    def speak(self, text: str, sink: Sink, *, ssml: bool = False) -> None:
        """Call ``sink`` for every 60 ms of sound, until it returns True. Raises what it raises."""
        if self._hidden is not None:
            self._hidden.reset()
        self._sink, self._failure = sink, None
        data = text.encode("utf-8", "replace")
        flags = _UTF8 | (_SSML if ssml else 0)
        status = self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, flags, None, None)
        if self._failure is not None:
            raise self._failure
        if status not in (0, 1):  # 1 is what a stopped synthesis returns
            raise RuntimeError(f"eSpeak NG failed with status {status}")

    def _receive(self, samples: int | None, count: int, events: "c.Array[_Event]") -> int:
        found = []
        index = 0
        while kind := (event := events[index]).type:
            if kind in (WORD, END):
                found.append(Event(kind, event.text_position - 1, event.length, event.sample))
            index += 1
        data = c.string_at(samples, 2 * count) if samples else b""
        if not (data or found):
            return 0
        assert self._sink is not None
        try:
            return int(self._sink(data, found))
        except BaseException as exc:  # which no C code can pass on
            self._failure = exc
            return 1


def _entries(array: "c._Pointer[c._Pointer[_Voice]]") -> list[_Voice]:
    """Of an array that ends with a null pointer: the library's own structures, not copies."""
    found = []
    while array[len(found)]:
        found.append(array[len(found)].contents)
    return found


def _languages(address: int) -> list[tuple[int, str]]:
    """A list of (priority byte, name, NUL), ended by a zero byte."""
    found = []
    while priority := c.string_at(address, 1)[0]:
        name = c.string_at(address + 1)
        found.append((priority, name.decode()))
        address += len(name) + 2
    return found
