"""The directories of a TIFF file, or of an EXIF block, which is one: read, and written anew.

Only descriptions are handled here; samples are decoded and encoded by libvips. Whatever the bytes
are, reading ends, takes no more memory than they do, and raises nothing but `TagsError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, TypeAlias

SHORT, LONG, RATIONAL = 3, 4, 5
EXIF, GPS = 34665, 34853
ORIENTATION, DESCRIPTION, COLOR_SPACE = 274, 270, 40961
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296

_PLACES = (273, 324)  # of strips, of tiles
_STRIP_SIZES = 279
_SIZES = dict(zip(range(1, 14), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), strict=True))
_SIZES |= {16: 8, 17: 8, 18: 8}
_UNITS = _SIZES | {5: 4, 10: 4}  # what is turned round for the other order of bytes
_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_DIRECTORIES, _LARGEST = 10_000, 2**24  # bytes of a description


class TagsError(ValueError):
    """No directories, or damaged ones."""


class Entry(NamedTuple):
    """What a tag holds: its type, and its values with the low byte first."""

    kind: int
    data: bytes

    @property
    def numbers(self) -> tuple[int, ...]:
        """The values of an entry of whole numbers, or of both parts of fractions."""
        code = "I" if self.kind == RATIONAL else _NUMBERS.get(self.kind)
        size = struct.calcsize(code) if code else 1
        return struct.unpack(f"<{len(self.data) // size}{code}", self.data) if code else ()


Directory: TypeAlias = "dict[int, Entry | Directory]"
"""By tag; under `EXIF` and `GPS` a directory of its own."""


def number(directory: Directory, tag: int, default: int) -> int:
    """The first number under a tag."""
    entry = directory.get(tag)
    numbers = entry.numbers if isinstance(entry, Entry) else ()
    return numbers[0] if numbers else default


def shorts(*numbers: int) -> Entry:
    """An entry of 16-bit numbers."""
    return Entry(SHORT, struct.pack(f"<{len(numbers)}H", *numbers))


def first(data: bytes) -> Directory:
    """The first directory, whatever follows it.

    Args:
        data: of the file or block.

    Raises:
        TagsError: there is none, or it is damaged.
    """
    for directory in _chain(data, _Layout.of(data)):
        return directory
    raise TagsError("no TIFF directory")


def read(data: bytes) -> list[Directory]:
    """All directories of a chain.

    Args:
        data: of the file or block.

    Raises:
        TagsError: one is damaged, or they have no end.
    """
    return list(_chain(data, _Layout.of(data)))


def exif_block(directory: Directory) -> bytes:
    """An EXIF block of one directory."""
    layout = _Layout("<", big=False)
    return b"II*\0\x08\0\0\0" + _written(directory, 8, layout)


def assembled(pages: list[bytes], added: list[Directory]) -> bytes:
    """One TIFF file of several, whose directories are written anew behind all samples.

    Args:
        pages: files of one page, all plain or all BigTIFF, in one order of bytes.
        added: tags for each; what has a tag already gets the new value.
    """
    layout = _Layout.of(pages[0])
    made, directories = bytearray(), []
    for page, tags in zip(pages, added, strict=True):
        made += b"\0" * (-len(made) % 8)
        directories.append(_moved(first(page), len(made)) | tags)
        made += page
    pointer = layout.first
    for directory in directories:
        made += b"\0" * (-len(made) % 8)
        struct.pack_into(layout.order + layout.offset, made, pointer, len(made))
        pointer = len(made) + layout.head + len(directory) * layout.entry
        made += _written(directory, len(made), layout)
    return bytes(made)


def _moved(directory: Directory, by: int) -> Directory:
    """A directory of samples that lie farther behind in the file."""
    moved = dict(directory)
    for tag in _PLACES:
        entry = directory.get(tag)
        if isinstance(entry, Entry):
            numbers = [place + by for place in entry.numbers]
            data = struct.pack(f"<{len(numbers)}{_NUMBERS[entry.kind]}", *numbers)
            moved[tag] = Entry(entry.kind, data)
    return moved


def below(data: bytes, directory: Directory, tag: int) -> list[Directory]:
    """The directories that a tag points to.

    Args:
        data: of the file.
        directory: that has the tag, or has it not.
        tag: its number.

    Raises:
        TagsError: one is damaged.
    """
    entry, layout = directory.get(tag), _Layout.of(data)
    places = entry.numbers if isinstance(entry, Entry) else ()
    try:
        return [_directory(data, place, layout, ())[0] for place in places[:_MOST_DIRECTORIES]]
    except (struct.error, OverflowError):
        raise TagsError("damaged TIFF directories") from None


def alone(data: bytes, directory: Directory) -> bytes:
    """The file with one directory only.

    Args:
        data: the file.
        directory: of samples in it.
    """
    layout = _Layout.of(data)
    made = bytearray(data) + b"\0" * (-len(data) % 8)
    struct.pack_into(layout.order + layout.offset, made, layout.first, len(made))
    return bytes(made + _written(directory, len(made), layout))


def of_strips(like: bytes, directory: Directory, strips: list[bytes]) -> bytes:
    """A file of one page, in the order of bytes of another, whose strips are given.

    They are at its end, so that no strip that is too short goes on in what is no samples. Those
    that are alike are there once.

    Args:
        like: the other file.
        directory: of the page, without its strips.
        strips: as they are stored.
    """
    layout = _Layout.of(like)
    kind, code = (16, "Q") if layout.big else (LONG, "I")
    front = layout.first + layout.inline

    def head(starts: Iterable[int]) -> bytes:
        numbers = (starts, map(len, strips))
        entries = [Entry(kind, b"".join(struct.pack(f"<{code}", n) for n in ns)) for ns in numbers]
        tags = dict(zip((_PLACES[0], _STRIP_SIZES), entries, strict=True))
        return _written(directory | tags, front, layout)

    different = list(dict.fromkeys(strips))
    place = front + len(head([0] * len(strips)))
    starts = dict(zip(different, accumulate(map(len, different), initial=place), strict=False))
    pointer = struct.pack(layout.order + layout.offset, front)
    front_of_strips = head(starts[strip] for strip in strips)
    return b"".join([like[: layout.first], pointer, front_of_strips, *different])


class _Layout:
    """Sizes and orders of a plain TIFF or a BigTIFF."""

    def __init__(self, order: str, big: bool):
        self.order, self.big = order, big
        self.offset, self.count, self.first = ("Q", "Q", 8) if big else ("I", "H", 4)
        self.inline = 8 if big else 4
        self.head = struct.calcsize(f"<{self.count}")
        self.entry = 20 if big else 12

    @classmethod
    def of(cls, data: bytes) -> _Layout:
        orders = {b"II": "<", b"MM": ">"}
        order = orders.get(data[:2])
        versions = {"<": (b"*\0", b"+\0"), ">": (b"\0*", b"\0+")}
        if order is None or data[2:4] not in versions[order]:
            raise TagsError("no TIFF directories")
        return cls(order, data[2:4] == versions[order][1])


def _chain(data: bytes, layout: _Layout) -> Iterator[Directory]:
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(layout.order + layout.offset, data, layout.first)
        while place:
            if place in seen or len(seen) == _MOST_DIRECTORIES:
                raise TagsError("its directories have no end")
            seen.add(place)
            directory, following = _directory(data, place, layout, (EXIF, GPS))
            yield directory
            (place,) = struct.unpack_from(layout.order + layout.offset, data, following)
    except (struct.error, OverflowError):  # of a place beyond all memory
        raise TagsError("damaged TIFF directories") from None


def _directory(
    data: bytes, place: int, layout: _Layout, below: tuple[int, ...]
) -> tuple[Directory, int]:
    """A directory, and where the place of the next one is written."""
    (count,) = struct.unpack_from(layout.order + layout.count, data, place)
    start = place + layout.head
    directory: Directory = {}
    if start + count * layout.entry > len(data):
        raise struct.error("it ends beyond the file")
    budget = len(data)
    for entry in range(start, start + count * layout.entry, layout.entry):
        tag, kind, length = struct.unpack_from(f"{layout.order}HH{layout.offset}", data, entry)
        size = _SIZES.get(kind, 0) * length
        at = entry + layout.entry - layout.inline
        (pointed,) = struct.unpack_from(layout.order + layout.offset, data, at)
        if tag in below:
            try:
                directory[tag] = _directory(data, pointed, layout, ())[0]
            except (struct.error, OverflowError):  # the picture may be sound
                continue
            continue
        if size > layout.inline:
            at = pointed
        budget -= size
        if size and size <= _LARGEST and at + size <= len(data) and budget >= 0:
            directory[tag] = Entry(kind, _turned(data[at : at + size], kind, layout.order))
    return directory, start + count * layout.entry


def _turned(data: bytes, kind: int, order: str) -> bytes:
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return data
    code = {2: "H", 4: "I", 8: "Q"}[unit]
    numbers = struct.unpack(f">{len(data) // unit}{code}", data)
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def _written(directory: Directory, place: int, layout: _Layout) -> bytes:
    """A directory that stands at a place and is the last of its chain, with what it points to."""
    entries, behind = b"", b""
    end = place + layout.head + len(directory) * layout.entry + struct.calcsize(layout.offset)
    for tag, entry in sorted(directory.items()):
        at = end + len(behind)
        if isinstance(entry, dict):
            kind, length, data = LONG, 1, struct.pack(layout.order + "I", at)
            behind += _written(entry, at, layout)
        else:
            kind, length = entry.kind, len(entry.data) // _SIZES[entry.kind]
            data = _turned(entry.data, kind, layout.order)
            if len(data) > layout.inline:
                behind += data + b"\0" * (len(data) % 2)
                data = struct.pack(layout.order + layout.offset, at)
        entries += struct.pack(f"{layout.order}HH{layout.offset}", tag, kind, length)
        entries += data.ljust(layout.inline, b"\0")
    head = struct.pack(layout.order + layout.count, len(directory))
    return head + entries + b"\0" * struct.calcsize(layout.offset) + behind
