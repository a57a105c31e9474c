"""Words inside an image file: a PNG's text and a JPEG's EXIF, and for both the mark of media made by a network."""

import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = len(_PNG) + 25  # with the IHDR part, which must stay the first
_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{_MADE}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()


def labelled(data: bytes, description: str, software: str) -> bytes:
    """A file with words in it that say what it shows; its pixels stay as they are.

    Args:
        data: a PNG or JPEG file that has no such words yet.
        description: ASCII.
        software: that made it, ASCII.

    Raises:
        ValueError: it is another kind of file.

    Source:
        W3C PNG specification (third edition), section 11.3.3; CIPA DC-008 (Exif 2.32), section 4.6; XMP
        specification part 3, section 1.1; IPTC's digital source types, for what a trained network made.
    """
    if data[:8] == _PNG:
        parts = [
            (b"tEXt", b"Description\0" + description.encode("ascii")),
            (b"tEXt", b"Software\0" + software.encode("ascii")),
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP),
        ]
        return data[:_HEADER] + b"".join(_part(*one) for one in parts) + data[_HEADER:]
    if data[:2] == b"\xff\xd8":
        # Behind JFIF's own segment, where there is one: that must stay the first.
        place = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
        segments = _segment(b"Exif\0\0" + _exif(description, software))
        return data[:place] + segments + _segment(b"http://ns.adobe.com/xap/1.0/\0" + _XMP) + data[place:]
    raise ValueError("words go into PNG and JPEG files alone")


def _part(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _segment(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body


def _exif(description: str, software: str) -> bytes:
    tags = [(0x010E, description.encode("ascii") + b"\0"), (0x0131, software.encode("ascii") + b"\0")]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = tails = b""
    for tag, text in tags:
        text = text.ljust(5, b"\0")  # up to four bytes would stand in the entry itself
        entries += struct.pack(">HHII", tag, 2, len(text), start + len(tails))
        tails += text
    return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4) + tails
