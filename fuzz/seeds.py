#!/usr/bin/env python3
"""Writes the seeds of the corpora, built from journal-format.md by tests/reader/builder.py.

    python3 fuzz/seeds.py

What fuzzing finds is added to the corpora by hand, under a name that says what it is.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "reader"))

import layout
from builder import SegmentBuilder, pack, record, snapshot, tag

NONCE = b"fuzzing a segmen".hex()
ALICE, APP, HOLDER = tag("alice"), tag("app"), tag("holder")


def write(target, name, data):
    directory = os.path.join(HERE, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def one_of_each_kind():
    """Returns a record of every kind, with LSNs from 2; enumerated fields have their first value."""
    made = {}
    for lsn, (_, kind) in enumerate(sorted(layout.KINDS.items()), start=2):
        fields = dict.fromkeys(kind.enumerations, 1)
        if kind.name not in layout.STRUCTURAL:
            fields["account"] = ALICE
        made[kind.name] = record(kind.name, lsn, **fields)
    return made


def text(value):
    return bytes([len(value)]) + value.encode()


def some(value):
    return b"\1" + value


def plains():
    nothing = b"\0"
    names = some(text("salesforce") + text("client")) + some(text("005x")) + \
        some(text("tenant") + text("crm")) + b"\2" + text("api") + text("refresh_token")
    return {
        "names": names,
        "no_names": nothing * 4,
        "pair": names + text("access") + some(text("refresh")) + nothing + text("Bearer") +
                some(text("https://login.example/token")) + nothing +
                b"\1" + text("issued_at") + text('"1"') + nothing,
        "pair_of_other_scopes": names + text("access") + some(text("refresh")) + nothing +
                                text("Bearer") + nothing + nothing + b"\0" +
                                some(b"\1" + text("api")),
        "refusal": text("invalid_grant") + text("expired access/refresh token") + nothing,
        "doubt": some(text("request")) + text("<html>"),
        "hostile_length": b"\xfd" + b"\xff" * 8 + b"names",
    }


EDITS = ["flip", "write", "number", "near", "zero", "truncate", "extend", "copy", "move", "swap",
         "double", "rename", "remove", "add"]
NUMBERS = [0, 1, 4095, 4096, 1 << 16, (1 << 31) - 1, (1 << 32) - 1, (1 << 32) + 1, (1 << 64) - 1 >> 8,
           (1 << 63) - 1, (1 << 64) - 2, (1 << 64) - 1]
TAIL, SNAPSHOT, LEFTOVERS = range(3)
CHECKSUMS, NUMBERS_IN_HEADERS = 1, 2


def directory(store, mend, *edits):
    """Says a directory as fuzz/directory/edits.rs reads it."""
    data = bytes([store, mend])
    for edit, file, *operands in edits:
        data += bytes([EDITS.index(edit), file])
        for operand in operands:
            data += operand if isinstance(operand, bytes) else bytes([operand])
    return data


def place(block, within):
    return bytes([block]) + within.to_bytes(2, "little")


def neighbour(by):
    """A new name: the number of the old one and so many more."""
    return (by + 4) * 2 + 1


def number(value):
    """The operand of an edit `number`, eight bytes wide."""
    return bytes([3, NUMBERS.index(value)])


def directories():
    """Files are counted in the order of their names; `LOCK` is 0, and the first segment 1."""
    limit, far = (1 << 64) - 1, (1 << 63) - 1
    mended = CHECKSUMS | NUMBERS_IN_HEADERS
    return {
        "tail": directory(TAIL, 0),
        "snapshot": directory(SNAPSHOT, 0),
        "leftovers": directory(LEFTOVERS, 0),
        "lock_note": directory(TAIL, 0, ("write", 0, place(0, 0), 8, b"pid x\xff\n-")),
        "odd_names": directory(TAIL, 0, *(("add", 0, name * 2, bytes(8)) for name in (0, 1, 2, 7))),
        "temporary": directory(SNAPSHOT, 0, ("add", 0, 10, bytes(8))),
        "sealed_part_mended": directory(TAIL, 1, ("flip", 1, place(3, 350), 1)),
        "hostile_flip": directory(TAIL, 0, ("flip", 1, place(3, 80), 4)),
        "hostile_segment_bytes": directory(TAIL, 1, ("number", 1, place(0, 24), number((1 << 32) - 1))),
        "hostile_batch_bytes": directory(
            TAIL, 1, ("write", 1, place(0, 20), 4, b"\0\0\0\1"),
            ("write", 1, place(4, 8), 4, b"\0\0\xff\0")),
        "hostile_batch_length": directory(TAIL, 1, ("number", 1, place(4, 8), number(4096))),
        "hostile_durable_through": directory(TAIL, 1, ("number", 1, place(4, 24), number(limit))),
        "hostile_lsn": directory(TAIL, 1, ("number", 1, place(4, 80), number(limit))),
        "hostile_lsn_of_batch": directory(TAIL, 1, ("number", 1, place(4, 16), number(far))),
        "hostile_lsn_far": directory(TAIL, 1, ("number", 1, place(4, 80), number(far))),
        "hostile_first_lsn": directory(TAIL, 1, ("number", 1, place(1, 80), number(limit)),
                                       ("number", 1, place(1, 16), number(limit))),
        "hostile_record_length": directory(TAIL, 1, ("number", 1, place(4, 72), number(4096))),
        "hostile_predecessor_end": directory(LEFTOVERS, 1, ("number", 12, place(1, 120), number(4096))),
        "hostile_swap": directory(LEFTOVERS, 0, ("swap", 11, 12)),
        "hostile_swap_mended": directory(LEFTOVERS, mended, ("swap", 11, 12)),
        "hostile_double": directory(TAIL, mended, ("double", 1, neighbour(9))),
        "hostile_rename": directory(TAIL, mended, ("rename", 1, neighbour(9))),
        "hostile_remove": directory(TAIL, 0, ("remove", 1)),
        "hostile_short": directory(TAIL, 0, ("truncate", 1, place(9, 100))),
        "hostile_copy": directory(TAIL, 1, ("copy", 1, 2, 3, 5, 0)),
        "hostile_zero": directory(TAIL, 0, ("zero", 1, place(2, 0), bytes([0, 16]))),
        "long": directory(TAIL, 0, ("extend", 1, bytes([0, 16]), 1)),
        "hostile_long_snapshot": directory(SNAPSHOT, 0, ("extend", 5, bytes([100, 0]), 1)),
    }


def main():
    kinds = one_of_each_kind()
    for name, data in kinds.items():
        write("record", name, data)
    for name, data in plains().items():
        write("plain", name, data)
    for name, data in directories().items():
        write("directory", name, data)

    opened = SegmentBuilder(1).opened(1)
    application = [data for name, data in kinds.items() if name not in layout.STRUCTURAL]
    for name, records in {
        "first": [opened, *application[:2]],
        "every_kind": application,
        "marker": [record("marker", 9, reason=2)],
    }.items():
        segment = SegmentBuilder(1, nonce=NONCE)
        start = segment.batch(*records)
        write("batch", name, bytes(segment.data[start:segment.end]))

    issued = record("issued", 3, account=ALICE, app=APP, op=2, grant=2, generation=1, flags=2)
    adopted = record("adopted", 4, account=ALICE, grant=2, holder=HOLDER)
    whole = snapshot(
        1 << 32, SegmentBuilder(2),
        [(ALICE, 4, APP, [issued, adopted]), (tag("bob"), 9, APP, [kinds["intent"]])],
        keys=[pack(layout.WRAPPED_KEY, key_id=7, kek_id=1)], opened=[tag("bob")], nonce=NONCE,
    )
    write("snapshot", "two_accounts", whole[4096:])
    empty = snapshot(1 << 32, SegmentBuilder(2), [], nonce=NONCE)
    write("snapshot", "empty", empty[4096:])


if __name__ == "__main__":
    main()
