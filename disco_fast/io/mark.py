"""The mark of a picture that an algorithm colored, in XMP, as archives and the IPTC ask for it."""

from __future__ import annotations

import re

from .._version import __version__

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
_NAMESPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PROPERTIES = ("DigitalSourceType", "AISystemUsed", "AISystemVersionUsed")
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    "</rdf:RDF>\n</x:xmpmeta>\n"
    '<?xpacket end="w"?>'
)


def marked(xmp: bytes | None) -> bytes:
    """An XMP packet that says so, and with which software; all else that it says stays.

    Args:
        xmp: the packet that there is; of one that is no RDF in UTF-8 or UTF-16 nothing is kept.
    """
    packet = _text(xmp)
    end = re.search(r"</([\w.-]+):RDF\s*>\s*(</|<\?|$)", packet)
    if end is None:
        return marked(None)
    rdf, place = end[1], end.start()
    packet = _without(packet[:place]) + packet[place:]
    place = re.search(rf"</{re.escape(rdf)}:RDF\s*>\s*(</|<\?|$)", packet).start()  # type: ignore[union-attr]
    mark = (
        f'<{rdf}:Description {rdf}:about="" xmlns:Iptc4xmpExt="{_NAMESPACE}"\n'
        f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"\n'
        f' Iptc4xmpExt:AISystemUsed="disco_fast"\n'
        f' Iptc4xmpExt:AISystemVersionUsed="{__version__}"/>\n'
    )
    return (packet[:place] + mark + packet[place:]).encode()


def upright(xmp: bytes) -> bytes:
    """The packet with the orientation that a picture has once it is turned."""
    return re.sub(rb"(\btiff:Orientation\s*(?:=\s*[\"']|>))\s*[2-8]", rb"\g<1>1", xmp)


def _text(xmp: bytes | None) -> str:
    try:
        return (xmp or b"").decode("utf-16" if b"\0" in (xmp or b"")[:64] else "utf-8") or _EMPTY
    except UnicodeDecodeError:
        return _EMPTY


def _without(packet: str) -> str:
    """The packet without what an earlier mark, or the camera, says of the same."""
    bound = re.findall(rf"xmlns:([\w.-]+)\s*=\s*[\"']{re.escape(_NAMESPACE)}[\"']", packet)
    for prefix in set(bound):
        names = rf"{re.escape(prefix)}:(?:{'|'.join(_PROPERTIES)})"
        packet = re.sub(rf"\s{names}\s*=\s*(\"[^\"]*\"|'[^']*')", "", packet)
        packet = re.sub(rf"<({names})\b[^<>]*(?:/>|>[^<]*</\1\s*>)", "", packet)
    return packet
