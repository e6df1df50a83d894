"""One segment: its header, its batches, its frames (journal-format.md, sections 4 to 6).

Reads what is there and says where and why it stops; what a stop means is decided in journal.py.
"""

import struct
import zlib

from layout import BATCH_HEADER, FRAME_HEADER, NONE, RECORD_HEADER, SEGMENT_HEADER, WRAPPED_KEY
from layout import Malformed
import record

VERSION = 1
HEADER_BYTES = 4096
BATCH_MAGIC = 0x4254574A
BATCH_BYTES_LIMIT = 16777216
SEGMENT_BYTES_LIMIT = 4294963200
RECORD_BYTES_MIN = 40
RECOVERY_GAP = 131072


class NewerVersion(Exception):
    """A file of a format version that this reader does not know ([F-14], [F-46])."""


class Invalid(Exception):
    """No valid frame stands here, and its bytes claim nothing: torn, perhaps."""


class Corrupt(Exception):
    """What stands here was written whole and is wrong ([F-22])."""


class Segment:
    """A segment with a valid header ([F-48]); raises Malformed else."""

    def __init__(self, path, number):
        self.path = path
        self.number = number
        with open(path, "rb") as file:
            self.data = file.read()
        self.header, self.keys = _header(self.data, number)
        self.nonce = bytes.fromhex(self.header["nonce"])
        self.end = self.header["segment_bytes"]

    def any_byte(self, at):
        """Says whether a byte other than zero stands from `at` to the segment's end ([F-50])."""
        return bool(self.data[at:self.end].strip(b"\0"))

    def batch(self, at):
        """Reads the batch header at an offset; None unless it is valid ([F-17])."""
        if at + BATCH_HEADER.size > min(self.end, len(self.data)):
            return None
        crc = zlib.crc32(self.nonce + struct.pack("<Q", at) + self.data[at + 4:at + 64])
        if crc != struct.unpack_from("<I", self.data, at)[0]:
            return None
        try:
            header = BATCH_HEADER.read(self.data, at)
        except Malformed:
            return None
        valid = (
            header["magic"] == BATCH_MAGIC
            and 1 <= header["count"] <= 65535
            and 64 + 48 * header["count"] <= header["length"] <= self.header["batch_bytes_max"]
            and at + header["length"] <= self.end
            and HEADER_BYTES <= header["durable_through"] <= at
        )
        return header if valid else None

    def frame(self, at, stop):
        """Reads the record of the frame at an offset, in a batch that ends at `stop` ([F-21])."""
        body = at + FRAME_HEADER.size
        if stop - at < FRAME_HEADER.size + RECORD_HEADER.size:
            raise Corrupt("the batch counts a frame for which it has no room")
        if body + RECORD_HEADER.size > len(self.data):
            raise Invalid("the file ends")
        head_crc, body_crc = struct.unpack_from("<II", self.data, at)
        record_header = self.data[body:body + RECORD_HEADER.size]
        place = self.nonce + struct.pack("<QI", at, body_crc)
        if head_crc != zlib.crc32(place + record_header):
            raise Invalid("the head's checksum is wrong")
        length = struct.unpack_from("<I", record_header)[0]
        if not RECORD_BYTES_MIN <= length <= record.RECORD_BYTES_MAX or body + length > stop:
            raise Corrupt("the frame's length is not possible here")
        if body_crc != zlib.crc32(self.data[body + RECORD_HEADER.size:body + length]):
            raise Invalid("the body's checksum is wrong")
        try:
            found = record.decode(self.data[body:body + length])
        except Malformed as error:
            raise Corrupt(str(error)) from error
        found.segment = self.number
        found.offset = at
        return found, body + length

    def opened(self):
        """Returns the `Opened` with which the segment begins, or None if none is valid."""
        scan = Scan(self, 0, self.end, only_first=True)
        return scan.records[0] if scan.records else None

    def scan(self, lsn, end=None):
        """Reads frames from the start, up to the offset `end` where a successor names one ([F-27]).

        `lsn` is the last one before this segment.
        """
        return Scan(self, lsn, self.end if end is None else end)


class Scan:
    """What a segment holds: its records, and the place `x` of section 12."""

    def __init__(self, segment, lsn, end, only_first=False):
        self.records = []
        self.batches = 0  # all of whose frames are valid
        self.durable_through = HEADER_BYTES
        self.valid_end = HEADER_BYTES  # behind the last valid frame
        self.x = HEADER_BYTES
        self.within = False  # x lies within a batch whose header is valid
        self.corrupt = None  # why the frame at x is no torn one
        self.lsn = lsn
        self._only_first = only_first
        while self.x < end and self._batch(segment, end):
            pass

    def _batch(self, segment, end):
        start = self.x
        header = segment.batch(start)
        if header is None:
            return False
        self.durable_through = max(self.durable_through, header["durable_through"])
        self.within = True
        stop = start + header["length"]
        self.x = start + BATCH_HEADER.size
        for count in range(header["count"]):
            if self.x >= end:
                return False
            try:
                found, behind = segment.frame(self.x, stop)
                self._check_order(found, header if count == 0 else None)
            except Invalid:
                return False
            except Corrupt as error:
                self.corrupt = str(error)
                return False
            if behind > end:
                return False
            self.records.append(found)
            self.lsn = found.lsn
            self.x = self.valid_end = behind
            if self._only_first:
                return False
        if self.x != stop and self.x < end:
            self.corrupt = "bytes are left over in the batch"
            return False
        block = segment.header["block_bytes"]
        self.x = (self.valid_end + block - 1) // block * block
        self.within = False
        self.batches += 1
        return not self.is_sealed()

    def is_sealed(self):
        """Says whether the segment ends in `Sealed`, in a whole batch ([F-26])."""
        return not self.within and self._behind_sealed()

    def _behind_sealed(self):
        return bool(self.records) and self.records[-1].kind == "sealed"

    def _check_order(self, found, batch):
        expected = self.lsn + 1
        if (found.kind == "opened") != (not self.records):
            raise Corrupt("a segment begins with Opened, and has it nowhere else")
        if found.kind == "opened":
            created = found["reason"] == "created"
            if created != (found["predecessor"] == NONE) or created and found["predecessor_lsn"]:
                raise Corrupt("an Opened that created has no predecessor, and no other")
            gap = RECOVERY_GAP if found["reason"] == "recovered" else 0
            expected = found["predecessor_lsn"] + 1 + gap
        if found.lsn != expected:
            raise Corrupt(f"LSN {found.lsn} stands where {expected} belongs")
        if batch and found.lsn != batch["first_lsn"]:
            raise Corrupt(f"the batch begins with LSN {found.lsn}, and names another")
        if self._behind_sealed():
            raise Corrupt("a frame follows Sealed")


def check_version(data, magic):
    """Checks a file's magic and version, before its checksum is asked for ([F-14])."""
    if data[:8] != magic:
        raise Malformed("the magic is wrong")
    version = struct.unpack_from("<I", data, 8)[0] if len(data) >= 12 else 0
    if version > VERSION:
        raise NewerVersion(version)
    if version != VERSION:
        raise Malformed(f"version {version} is unknown")


def header_crc(data):
    return zlib.crc32(data[0:12] + data[16:4096])


def _header(data, number):
    check_version(data, b"TOKENWAL")
    header = SEGMENT_HEADER.read(data)
    if header["crc"] != header_crc(data):
        raise Malformed("the header's checksum is wrong")
    block = header["block_bytes"]
    slots, keys = header["data_keys"], header["keys"]
    if (
        not 512 <= block <= 65536
        or block & (block - 1)
        or header["batch_bytes_max"] > BATCH_BYTES_LIMIT
        or header["segment_bytes"] > SEGMENT_BYTES_LIMIT
        or header["segment_bytes"] % block
        or header["number"] != number
        or NONE in (header["store"], header["nonce"])
        or WRAPPED_KEY.read(header["tag_key"])["key_id"] != 0
        or not 1 <= keys <= 4
        or any(slots[keys * WRAPPED_KEY.size:])
    ):
        raise Malformed("the header's fields contradict the format")
    ids = [WRAPPED_KEY.read(slots, at * WRAPPED_KEY.size)["key_id"] for at in range(keys)]
    if 0 in ids:
        raise Malformed("a key slot that is in use has no id")
    return header, ids
