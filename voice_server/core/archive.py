"""Reads and writes the ZIP container of a voice package, from bytes to bytes.

    EOCD ─► central directory ─► names ─► no overlaps ─► local headers agree ─► data, counted

The reader is strict where ``zipfile`` is lenient: every name is on a list, no two entries share
a byte, sizes are counted while unpacking, and what two headers say must agree. Layout: PKWARE
APPNOTE 6.3.10, sections 4.3 and 4.4. The writer stores without compression and without the
time, so that the same contents are the same bytes everywhere.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from voice_server.core.errors import RequestError, TooLarge

MAX_ENTRIES = 64
MAX_RATIO = 100
MAX_UNPACKED = 256 * 1024 * 1024

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_UTF8 = 0x800
_HAS_DESCRIPTOR = 0x8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_EPOCH_DATE = 0x21  # 1 January 1980, the first day a ZIP can tell


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_archive(
    data: bytes,
    allowed: re.Pattern[str],
    *,
    max_entries: int = MAX_ENTRIES,
    max_unpacked: int = MAX_UNPACKED,
) -> dict[str, bytes]:
    """Contents by name; ``allowed`` must match a name fully. Folders are left out.

    Raises RequestError with code ``bad_package``, or TooLarge.
    """
    entries = _central_directory(data, max_entries)
    seen: set[str] = set()
    for entry in entries:
        folded = entry.name.casefold()
        if not allowed.fullmatch(entry.name):
            raise _bad(f"it holds {entry.name[:80]!r}, which no voice package has")
        if folded in seen:
            raise _bad(f"it holds {entry.name[:80]!r} twice")
        seen.add(folded)
    if sum(entry.size for entry in entries) > max_unpacked:
        raise TooLarge(
            f"the package would unpack to more than {max_unpacked // 2**20} MB",
            code="package_too_large",
        )
    ranges = sorted((entry.offset, *_data_range(data, entry), entry.name) for entry in entries)
    for before, after in itertools.pairwise(ranges):
        if before[2] > after[0]:
            raise _bad(f"{before[3][:80]!r} and {after[3][:80]!r} overlap")
    return {
        name: _unpacked(data, entry, start)
        for entry in entries
        for _, start, _, name in ranges
        if name == entry.name and not name.endswith("/")
    }


def write_archive(contents: Mapping[str, bytes]) -> bytes:
    """A ZIP of these contents in their order, stored. The same contents give the same bytes."""
    body = bytearray()
    directory = bytearray()
    for name, content in contents.items():
        raw = name.encode()
        crc, size, offset = zlib.crc32(content), len(content), len(body)
        common = (_UTF8, _STORED, 0, _EPOCH_DATE, crc, size, size, len(raw))
        body += _LOCAL.pack(b"PK\x03\x04", 20, *common, 0) + raw + content
        # Made on Unix (3), a plain file that everybody may read.
        attributes = 0o100644 << 16
        directory += _CENTRAL.pack(
            b"PK\x01\x02", 3 << 8 | 20, 20, *common, 0, 0, 0, 0, attributes, offset
        )
        directory += raw
    count = len(contents)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory + end)


def _central_directory(data: bytes, max_entries: int) -> list[_Entry]:
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    if at < 0 or len(data) - at < _END.size:
        raise _bad("it is no ZIP file, or its end is missing; send it again")
    _, disk, first_disk, here, total, size, offset, comment = _END.unpack_from(data, at)
    if disk or first_disk or here != total or at + _END.size + comment != len(data):
        raise _bad("its directory is damaged; send it again")
    if total > max_entries:
        raise _bad(f"it has {total} entries; a voice package has at most {max_entries}")
    if offset + size != at:
        raise _bad("its directory is not where it says it is")
    entries = []
    for _ in range(total):
        if offset + _CENTRAL.size > at:
            raise _bad("its directory is damaged; send it again")
        (magic, made, _, flags, method, _, _, crc, packed, unpacked) = _CENTRAL.unpack_from(
            data, offset
        )[:10]
        name_size, extra, remark, disk, _, attributes, header = _CENTRAL.unpack_from(data, offset)[
            10:
        ]
        raw = data[offset + _CENTRAL.size : offset + _CENTRAL.size + name_size]
        offset += _CENTRAL.size + name_size + extra + remark
        if magic != b"PK\x01\x02" or offset > at or disk:
            raise _bad("its directory is damaged; send it again")
        if flags & _ENCRYPTED:
            raise _bad("it is encrypted; pack it without a password")
        if method not in (_STORED, _DEFLATED):
            raise _bad(f"it uses compression method {method}; pack it as an ordinary ZIP")
        kind = attributes >> 28 if made >> 8 == 3 else 0
        if kind not in (0, 0o10, 0o04):
            raise _bad("it holds a link or device")
        if packed == 0xFFFFFFFF or unpacked == 0xFFFFFFFF or header == 0xFFFFFFFF:
            raise _bad("it is a ZIP64; voice packages are smaller than that")
        if method == _STORED and packed != unpacked:
            raise _bad("the sizes in its directory contradict each other")
        if unpacked > MAX_RATIO * max(packed, 1) and unpacked > 1024:
            raise _bad(f"an entry claims to unpack to more than {MAX_RATIO} times its size")
        try:
            name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
        except UnicodeDecodeError:
            raise _bad(f"it holds the name {raw[:40]!r}, which is not text") from None
        entries.append(_Entry(name, raw, flags, method, crc, packed, unpacked, header))
    if offset != at:
        raise _bad("its directory is damaged; send it again")
    return entries


def _data_range(data: bytes, entry: _Entry) -> tuple[int, int]:
    """Where the entry's data begins and ends, by its own header, which must say the same."""
    if entry.offset + _LOCAL.size > len(data):
        raise _bad(f"{entry.name[:80]!r} lies outside of it")
    magic, _, flags, method, _, _, crc, packed, size, name_size, extra = _LOCAL.unpack_from(
        data, entry.offset
    )
    at = entry.offset + _LOCAL.size
    if magic != b"PK\x03\x04" or data[at : at + name_size] != entry.raw_name:
        raise _bad(f"the header of {entry.name[:80]!r} contradicts the directory")
    told_later = flags & _HAS_DESCRIPTOR and (crc, packed, size) == (0, 0, 0)
    if (flags, method) != (entry.flags, entry.method) or not (
        told_later or (crc, packed, size) == (entry.crc, entry.packed, entry.size)
    ):
        raise _bad(f"the header of {entry.name[:80]!r} contradicts the directory")
    start = at + name_size + extra
    if start + entry.packed > len(data):
        raise _bad(f"{entry.name[:80]!r} is cut off; send it again")
    return start, start + entry.packed


def _unpacked(data: bytes, entry: _Entry, start: int) -> bytes:
    packed = data[start : start + entry.packed]
    if entry.method == _STORED:
        content = packed
    else:
        unpacker = zlib.decompressobj(-15)
        try:
            content = unpacker.decompress(packed, entry.size + 1)
        except zlib.error as exc:
            raise _bad(f"{entry.name[:80]!r} is damaged ({exc}); send it again") from None
        if not unpacker.eof or unpacker.unused_data:
            raise _bad(f"{entry.name[:80]!r} is not of the size it claims")
    if len(content) != entry.size:
        raise _bad(f"{entry.name[:80]!r} is not of the size it claims")
    if zlib.crc32(content) != entry.crc:
        raise _bad(f"{entry.name[:80]!r} is damaged; send it again")
    return content


def _bad(why: str) -> RequestError:
    return RequestError(f"this voice package cannot be used: {why}", code="bad_package")
