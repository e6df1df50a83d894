"""A store: its files, the chain of segments, the verdict (journal-format.md, 3, 8, 11 and 12).

Reads only. One decode loop, in segment.py, serves every use.
"""

import os
import re

from layout import NONE, Malformed
from segment import HEADER_BYTES, NewerVersion, Segment
from snapshot import Snapshot

SEGMENT_NAME = re.compile(r"segment-([0-9]{20})\.twj")
SNAPSHOT_NAME = re.compile(r"snapshot-([0-9]{20})\.tws")
TEMPORARY_NAME = re.compile(r"(segment-[0-9]{20}\.twj|snapshot-[0-9]{20}\.tws)\.tmp")

CLEAN, TORN, SUSPECT, CORRUPT = "clean", "torn", "suspect", "corrupt"


class Refused(Exception):
    """A verdict of corrupt or suspect, with its place and its reason."""

    def __init__(self, verdict, where, why):
        super().__init__(f"{verdict}: {where}: {why}")
        self.verdict = verdict
        self.where = where
        self.why = why


class Journal:
    """All that a directory holds, read once.

    `verdict` is one of the four words; `problem` is the reason for the last two, whose records are
    those before the damage. `live_through` is the last LSN that is known to be durable (section 11,
    step 6): a reader beside a living writer counts no later one.
    """

    def __init__(self, directory):
        self.foreign = []  # names of another shape ([F-9])
        self.bad_snapshots = []  # what is wrong with snapshots, used or not
        self.snapshot = None
        self.records = []
        self.chain = []
        self.batches = 0
        self.verdict = CLEAN
        self.problem = None
        self.proven = False
        self.last_lsn = 0
        self.live_through = 0
        try:
            snapshots, paths = self._list(directory)
            self._take_snapshot(snapshots, paths)
            first = self.snapshot.header["tail_number"] if self.snapshot else 0
            present = self._open({n: path for n, path in paths.items() if n >= first})
            self._follow(present, max(snapshots, default=0))
        except Refused as refused:
            self.verdict = refused.verdict
            self.problem = refused

    def _list(self, directory):
        snapshots, segments = {}, {}
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if (number := _number(SEGMENT_NAME, name)) is not None:
                segments[number] = path
            elif (number := _number(SNAPSHOT_NAME, name)) is not None:
                snapshots[number] = path
            elif name not in ("LOCK", "control") and not TEMPORARY_NAME.fullmatch(name):
                self.foreign.append(name)
        return snapshots, segments

    def _take_snapshot(self, snapshots, segments):
        """Takes the newest snapshot, or an older one where that is enough ([F-42])."""
        damage = None
        for lsn in sorted(snapshots, reverse=True):
            try:
                found = Snapshot(snapshots[lsn], lsn)
            except Malformed as error:
                damage = damage or Refused(CORRUPT, snapshots[lsn], str(error))
                self.bad_snapshots.append(f"{snapshots[lsn]}: {error}")
                continue
            self.bad_snapshots.extend(found.bad_blocks)
            fits = damage is None or found.header["tail_number"] in segments
            if fits and self.snapshot is None:
                self.snapshot = found
                self.last_lsn = self.live_through = lsn
        if damage and self.snapshot is None:
            raise damage

    def _open(self, paths):
        """Opens the segments that no snapshot covers ([F-51])."""
        present = {}
        store = self.snapshot.header["store"] if self.snapshot else None
        for number in sorted(paths):
            try:
                segment = Segment(paths[number], number)
            except Malformed as error:
                raise Refused(CORRUPT, paths[number], str(error)) from error
            store = store or segment.header["store"]
            if segment.header["store"] != store:
                raise Refused(CORRUPT, segment.path, "it belongs to another store")
            present[number] = segment
        return present

    def _first(self, present):
        """Finds the chain's first segment ([F-24])."""
        if self.snapshot:
            wanted = self.snapshot.header
            segment = present.get(wanted["tail_number"])
            if segment is None or segment.header["nonce"] != wanted["tail"]:
                raise Refused(CORRUPT, "directory", "the segment after the snapshot is missing")
            opened = segment.opened()
            if opened and opened["predecessor_lsn"] != wanted["lsn"]:
                raise Refused(CORRUPT, segment.path, "it does not go on where the snapshot ends")
            return segment
        segment = present[min(present)] if present else None
        opened = segment and segment.opened()
        if not opened or opened["predecessor"] != NONE:
            raise Refused(CORRUPT, "directory", "no segment begins the chain")
        return segment

    def _follow(self, present, watermark):
        segment = self._first(present)
        while segment:
            later = [present[number] for number in sorted(present) if number > segment.number]
            scan = self._read(segment, later)
            successor, broken = self._successor(segment, scan, later)
            if successor is None:
                others = [s for s in present.values() if s not in self.chain]
                self._decide(segment, scan, broken, others, watermark)
            segment = successor

    def _read(self, segment, later):
        """Takes in one segment of the chain."""
        opened = next(filter(None, (other.opened() for other in later)), None)
        end = None
        if opened and opened["reason"] == "recovered":
            if opened["predecessor"] == segment.header["nonce"]:
                end = opened["predecessor_end"]
        before = self.last_lsn
        scan = segment.scan(self.last_lsn, end)
        self.chain.append(segment)
        self.batches += scan.batches
        self.records.extend(scan.records)
        self.last_lsn = scan.lsn
        if scan.records:
            durable = [r.lsn for r in scan.records if r.end() <= scan.durable_through]
            self.live_through = max([before, *durable])
        return scan

    def _successor(self, segment, scan, later):
        """Returns what follows a segment, and why the chain is broken if it is ([F-25], [F-26])."""
        if scan.is_sealed():
            named = scan.records[-1]
            successor = later[0] if later else None
            if (
                successor is None
                or successor.number != named["successor_number"]
                or successor.header["nonce"] != named["successor"]
            ):
                return None, "the segment that Sealed names is missing"
            opened = successor.opened()
            if opened and not self._follows(segment, scan, opened, "rolled over"):
                return None, "the segment that Sealed names does not follow on it"
            return successor, None
        successor = next((other for other in later if other.opened()), None)
        if successor is None:
            return None, None
        if not self._follows(segment, scan, successor.opened(), "recovered"):
            return None, f"segment {successor.number} does not follow on this one"
        return successor, None

    def _follows(self, segment, scan, opened, reason):
        return (
            opened["reason"] == reason
            and opened["predecessor"] == segment.header["nonce"]
            and opened["predecessor_end"] == scan.valid_end
            and opened["predecessor_lsn"] == scan.lsn
        )

    def _decide(self, segment, scan, broken, others, watermark):
        """Decides what the end of the chain means (section 12, rows 2 to 10)."""
        x, block = scan.x, segment.header["block_bytes"]
        where = f"{segment.path}, offset {x}"
        for link in self.chain:
            if len(link.data) < link.end:
                raise Refused(CORRUPT, link.path, "the file is shorter than its header says")
        if scan.corrupt:
            raise Refused(CORRUPT, where, scan.corrupt)
        if broken:
            raise Refused(CORRUPT, where, broken)
        for at in range((x + block) // block * block, segment.end, block):
            batch = segment.batch(at)
            if batch and batch["durable_through"] > x:
                raise Refused(CORRUPT, where, f"it was durable when the batch at {at} was written")
        if self.last_lsn < watermark:
            raise Refused(CORRUPT, where, f"the journal once reached LSN {watermark}")
        if segment.any_byte(x + segment.header["batch_bytes_max"]):
            raise Refused(SUSPECT, where, "more bytes follow than one batch can leave")
        for other in others:
            if other.any_byte(HEADER_BYTES):
                raise Refused(SUSPECT, other.path, "a segment that is no part of it holds bytes")
        self.verdict = TORN if scan.within or segment.any_byte(x) else CLEAN
        last = self.records[-1] if scan.records else None
        self.proven = self.verdict == CLEAN and last is not None and last.kind == "marker"

    def broken_promises(self):
        """Says what a writer has not kept to, although no verdict depends on it ([F-16])."""
        promises = self.snapshot.broken_promises() if self.snapshot else []
        keys = {segment.number: segment.keys for segment in self.chain}
        for found in self.records:
            if found.key and found.key not in keys[found.segment]:
                promises.append(f"record {found.lsn} names a key that its segment does not carry")
        return promises


def _number(shape, name):
    """Returns the number in a name of this shape, if it is one that fits."""
    match = shape.fullmatch(name)
    return int(match[1]) if match and int(match[1]) < 1 << 64 else None


__all__ = ["Journal", "NewerVersion", "Refused"]
