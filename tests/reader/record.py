"""Records: the same bytes in frames and in snapshots (journal-format.md, sections 6 and 7)."""

from layout import FRAME_HEADER, KINDS, RECORD_HEADER, STRUCTURAL, Malformed

RECORD_BYTES_MAX = 1048576
SEALED_BYTES_MIN = 28


class Record:
    """A decoded record: its header's fields, and its clear part as a dictionary."""

    def __init__(self, header, kind, clear, flags):
        self.lsn = header["lsn"]
        self.at = header["at"]
        self.key = header["key"]
        self.length = header["length"]
        self.kind = kind.name
        self.clear = clear
        self.flags = flags
        self.segment = None  # where its frame stands; None in a snapshot
        self.offset = None

    def end(self):
        """Returns the offset behind its frame."""
        return self.offset + FRAME_HEADER.size + self.length

    def __getitem__(self, field):
        return self.clear[field]

    def as_json(self):
        clear = dict(self.clear)
        if "flags" in clear:
            clear["flags"] = sorted(self.flags)
        return {
            "lsn": self.lsn, "kind": self.kind, "at": self.at, "segment": self.segment,
            "offset": self.offset, "length": self.length, **clear,
        }


def decode(data):
    """Decodes a whole record, or says why it is not well formed ([F-20])."""
    header = RECORD_HEADER.read(data)
    kind = KINDS.get(header["kind"])
    if kind is None:
        raise Malformed(f"kind {header['kind']} is unknown")
    if header["length"] != len(data) or header["length"] > RECORD_BYTES_MAX:
        raise Malformed(f"{kind.name} has a wrong length")
    if header["clear_bytes"] != kind.clear.size:
        raise Malformed(f"{kind.name} has {header['clear_bytes']} clear bytes")
    sealed_bytes = len(data) - RECORD_HEADER.size - kind.clear.size
    if kind.name in STRUCTURAL:
        if header["key"] != 0 or sealed_bytes != 0:
            raise Malformed(f"{kind.name} has a sealed part")
    elif header["key"] == 0 or sealed_bytes < SEALED_BYTES_MIN:
        raise Malformed(f"{kind.name} has no sealed part")
    clear = kind.clear.read(data, RECORD_HEADER.size)
    for field, names in kind.enumerations.items():
        if not 1 <= clear[field] < len(names):
            raise Malformed(f"{kind.name} has {field} {clear[field]}")
        clear[field] = names[clear[field]]
    return Record(header, kind, clear, _flags(kind, clear.get("flags", 0)))


def _flags(kind, bits):
    names = set()
    for bit in range(32):
        if bits >> bit & 1:
            if bit not in kind.flags:
                raise Malformed(f"{kind.name} has the reserved flag {bit}")
            names.add(kind.flags[bit])
    return names
