"""Leave packets out of an Ogg/Opus file without coding it anew."""

import struct


def _table():
    table = []
    for i in range(256):
        r = i << 24
        for _ in range(8):
            r = ((r << 1) ^ 0x04C11DB7) if r & 0x80000000 else r << 1
        table.append(r & 0xFFFFFFFF)
    return table


TABLE = _table()


def checksum(data):
    """Return Ogg's CRC-32 of a page whose checksum field is 0."""
    crc = 0
    for byte in data:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ TABLE[(crc >> 24) ^ byte]
    return crc


def packets(data):
    """Return the packets of an Ogg file of one stream."""
    complete, part, at = [], b"", 0
    while at < len(data):
        if data[at : at + 4] != b"OggS":
            raise ValueError(f"byte {at}: no Ogg page begins here")
        count = data[at + 26]
        sizes = data[at + 27 : at + 27 + count]
        at += 27 + count
        for size in sizes:
            part += data[at : at + size]
            at += size
            if size < 255:
                complete.append(part)
                part = b""
    return complete


def page(packs, granule, number, flags, serial=1):
    """Return one page of whole packets."""
    lacing = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in packs)
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, serial, number, 0, len(lacing))
    whole = bytearray(head + lacing + b"".join(packs))
    whole[22:26] = struct.pack("<I", checksum(whole))
    return bytes(whole)


def write(head, tags, packs, frame=960, per_page=100):
    """Return an Ogg/Opus file of packets of `frame` samples at 48 kHz each."""
    out = [page([head], 0, 0, 2), page([tags], 0, 1, 0)]
    for start in range(0, len(packs), per_page):
        part = packs[start : start + per_page]
        end = start + len(part)
        out.append(page(part, end * frame, len(out), 4 if end == len(packs) else 0))
    return b"".join(out)
