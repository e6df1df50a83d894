"""Builds stores for the tests, byte by byte as journal-format.md says, with no cipher at all.

Sealed parts are filler: without a key nobody can tell, and the reader never looks into them.
"""

import os
import struct
import zlib

from layout import (
    ACCOUNT_HEADER, BATCH_HEADER, BLOCK_HEADER, INDEX_ITEM, KINDS, NONE, OPEN_ITEM,
    RECORD_HEADER, SEGMENT_HEADER, SNAPSHOT_FOOTER, SNAPSHOT_HEADER, STRUCTURAL,
)

BLOCK = 4096
SEGMENT_BYTES = 16 * BLOCK
BATCH_BYTES_MAX = 4 * BLOCK
STORE = "5a" * 16
TAG_KEY = bytes(8) + b"\x01" * 68
KEY_ID = 7
DATA_KEY = struct.pack("<Q", KEY_ID) + b"\x02" * 68
NUMBERS = {kind.name: number for number, kind in KINDS.items()}


def tag(text):
    """Makes a tag that a person can recognise in a failing test."""
    return text.encode().ljust(16, b".").hex()


def pack(table, **values):
    """Packs a table; what is not named is zero, sixteen bytes are given in hexadecimal."""
    packed = []
    for name, code in table.fields:
        value = values.pop(name, None) if name != "reserved" else None
        if code.endswith("s"):
            width = int(code[:-1])
            value = bytes.fromhex(value) if isinstance(value, str) else value or b""
            value = value.ljust(width, b"\0")
        packed.append(value or 0 if not code.endswith("s") else value)
    assert not values, f"no such fields: {sorted(values)}"
    return table.struct.pack(*packed)


def record(kind, lsn, **fields):
    """Builds a record; enumerated fields are given by their numbers."""
    return raw_record(kind, lsn, pack(KINDS[NUMBERS[kind]].clear, **fields))


def raw_record(kind, lsn, clear, sealed_bytes=None, **header):
    """Builds a record of any clear part, well formed or not."""
    structural = kind in STRUCTURAL
    sealed = b"\xcc" * ((0 if structural else 28) if sealed_bytes is None else sealed_bytes)
    fields = {
        "length": 32 + len(clear) + len(sealed), "kind": NUMBERS[kind],
        "clear_bytes": len(clear), "lsn": lsn, "at": 1_700_000_000_000,
        "key": 0 if structural else KEY_ID, **header,
    }
    return pack(RECORD_HEADER, **fields) + clear + sealed


class SegmentBuilder:
    """A segment in the making; `at` is where the next batch goes."""

    def __init__(self, number, nonce=None, **header):
        self.number = number
        self.nonce = nonce or tag(f"segment {number}")
        fields = {
            "magic": b"TOKENWAL", "version": 1, "block_bytes": BLOCK,
            "batch_bytes_max": BATCH_BYTES_MAX, "segment_bytes": SEGMENT_BYTES, "store": STORE,
            "nonce": self.nonce, "number": number, "created_at": 1, "incarnation": 1, "keys": 1,
            "tag_key": TAG_KEY, "data_keys": DATA_KEY, **header,
        }
        plain = pack(SEGMENT_HEADER, **fields)
        crc = zlib.crc32(plain[:12] + plain[16:])
        self.data = bytearray(plain[:12] + struct.pack("<I", crc) + plain[16:])
        self.data += bytes(fields["segment_bytes"] - len(self.data))
        self.at = self.end = BLOCK

    def batch(self, *records, durable_through=None, **header):
        """Writes a batch; everything before it counts as durable unless told otherwise."""
        nonce = bytes.fromhex(self.nonce)
        start = self.at
        body = b""
        for data in records:
            at = start + BATCH_HEADER.size + len(body)
            body_crc = zlib.crc32(data[32:])
            place = nonce + struct.pack("<QI", at, body_crc)
            body += struct.pack("<II", zlib.crc32(place + data[:32]), body_crc) + data
        fields = {
            "magic": 0x4254574A, "length": 64 + len(body), "count": len(records),
            "first_lsn": struct.unpack_from("<Q", records[0], 8)[0],
            "durable_through": start if durable_through is None else durable_through, **header,
        }
        plain = pack(BATCH_HEADER, **fields)
        crc = zlib.crc32(nonce + struct.pack("<Q", start) + plain[4:])
        plain = struct.pack("<I", crc) + plain[4:] + body
        self.data[start:start + len(plain)] = plain
        self.end = start + len(plain)
        self.at = (self.end + BLOCK - 1) // BLOCK * BLOCK
        return start

    def opened(self, lsn, before=None, **fields):
        """Begins the segment, after another one unless it is a store's first."""
        fields = {"reason": 1, "incarnation": 1, "host": tag("h"), "owner": tag("o"), **fields}
        if before:
            follows = {
                "predecessor": before.nonce, "predecessor_end": before.end,
                "predecessor_lsn": lsn - 1,
            }
            fields = {**follows, **fields}
        return record("opened", lsn, **fields)

    def sealed(self, lsn, successor, **fields):
        names = {"successor": successor.nonce, "successor_number": successor.number}
        return record("sealed", lsn, **{**names, **fields})

    def write(self, directory):
        path = os.path.join(directory, f"segment-{self.number:020}.twj")
        with open(path, "wb") as file:
            file.write(self.data)
        return path


def snapshot(
    lsn, tail, accounts, keys=(), opened=(), wrong=None, nonce=tag("snapshot"), apart=False,
):
    """Builds a snapshot of (tag, version, app, records), in one block.

    `wrong` gives fields false values: of a block by its kind's number, of `header`, `index` or
    `footer`. With `apart` each account has a block of its own.
    """
    wrong = wrong or {}
    raw = bytes.fromhex(nonce)
    fields = {
        "magic": b"TWALSNAP", "version": 1, "store": STORE, "nonce": nonce, "lsn": lsn,
        "created_at": 1, "tail": tail.nonce, "tail_number": tail.number, "tag_key": TAG_KEY,
    }
    plain = pack(SNAPSHOT_HEADER, **{**fields, **wrong.get("header", {})})
    data = bytearray(plain[:12] + struct.pack("<I", zlib.crc32(plain[:12] + plain[16:])))
    data += plain[16:]

    def block(kind, count, first, payload):
        at = len(data)
        fields = {"length": len(payload), "kind": kind, "count": count, "first": first}
        header = pack(BLOCK_HEADER, **{**fields, **wrong.get(kind, {})})
        crc = zlib.crc32(raw + struct.pack("<Q", at) + header[4:] + payload)
        data.extend(struct.pack("<I", crc) + header[4:] + payload)
        item = {"first": first, "offset": at, "length": len(payload), "count": count}
        return pack(INDEX_ITEM, **{**item, **wrong.get("index", {})})

    index_items = []
    for together in [[each] for each in accounts] if apart else [accounts] if accounts else []:
        payload = b"".join(
            pack(
                ACCOUNT_HEADER, account=name, version=version, app=app,
                length=sum(map(len, records)), records=len(records),
            ) + b"".join(records)
            for name, version, app, records in together
        )
        index_items.append(block(1, len(together), together[0][0], payload))
    index = len(data)
    if index_items:
        block(2, len(index_items), accounts[0][0], b"".join(index_items))
    keys_at = len(data)
    if keys:
        block(3, len(keys), NONE, b"".join(keys))
    open_at = len(data)
    if opened:
        items = b"".join(pack(OPEN_ITEM, account=name, operations=1) for name in opened)
        block(4, len(opened), opened[0], items)
    fields = {
        "magic": 0x53544F46, "index": index, "keys": keys_at, "open": open_at,
        "accounts": len(accounts), "records": sum(len(records) for *_, records in accounts),
        "end": len(data), "lsn": lsn,
    }
    footer = pack(SNAPSHOT_FOOTER, **{**fields, **wrong.get("footer", {})})
    data += struct.pack("<I", zlib.crc32(raw + footer[4:])) + footer[4:]
    return bytes(data)
