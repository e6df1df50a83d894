//! The golden files: what the code writes from fixed keys and a fixed seed, and whether it still
//! reads what stands in the repository.

use crate::document::DOCUMENT;
use crate::dump;
use std::path::PathBuf;
use std::sync::Mutex;
use tokenwal::internals::codec::{List, Names, Nothing, Pair, Plain};
use tokenwal::internals::format::batch::{BatchBuffer, BatchHeader};
use tokenwal::internals::format::block::{Block, BlockKind, OpenItem};
use tokenwal::internals::format::build::{AccountsBlock, ItemsBlock};
use tokenwal::internals::format::clear::{
    Adopted, Clear, Flags, Intent, Issued, Marker, Opened, Prefix,
};
use tokenwal::internals::format::frame::{Expect, Frames};
use tokenwal::internals::format::record::{Record, body_crc, encode_record, set_lsn};
use tokenwal::internals::format::segment::{SegmentHeader, WrappedKey};
use tokenwal::internals::format::snapshot::{FOOTER_BYTES, Footer, SnapshotHeader};
use tokenwal::internals::format::value::{Action, MarkerReason, OpenedReason};
use tokenwal::internals::seal::{DataKey, MacKey, Sealer, TagKey, Tagger, WrappingKey};
use tokenwal::internals::{HostTag, OwnerId};
use tokenwal::{
    Account, AccountTag, App, AppTag, Entropy, Fingerprint, Generation, GrantId, Holder, HolderTag,
    Lsn, Nonce, OpId, StoreId, User,
};

const KEK: [u8; 32] = [0x11; 32];
/// 2025-11-22 12:00:00 UTC.
const NOW_MS: u64 = 1_763_812_800_000;
const BLOCK_BYTES: u32 = 512;
const ACCESS_TOKEN: &str = "00D5g00000Golden!Access";
const REFRESH_TOKEN: &str = "5Aep861Golden.Refresh";

/// Draws the same bytes in every run (SplitMix64).
struct Seeded(Mutex<u64>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        let mut state = self.0.lock().unwrap();
        for byte in bytes {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            *byte = u8::try_from((mixed ^ (mixed >> 31)) >> 56).unwrap();
        }
        Ok(())
    }
}

/// One store with one account: an exchange that was issued and adopted, and one that is open.
struct Story {
    entropy: Seeded,
    store: StoreId,
    kek: WrappingKey,
    tag_key: TagKey,
    data_key: DataKey,
    app: App,
    user: User,
    holder: Holder,
}

impl Story {
    fn new() -> Self {
        let entropy = Seeded(Mutex::new(1));
        let mut store = [0; 16];
        entropy.fill(&mut store).unwrap();
        Self {
            store: StoreId::from_bytes(store),
            kek: WrappingKey::new(&KEK),
            tag_key: TagKey::generate(&entropy).unwrap(),
            data_key: DataKey::generate(&entropy).unwrap(),
            app: App::new("salesforce", "3MVG9golden").unwrap(),
            user: User::new("00D5g00000Golden/0055g00000Golden").unwrap(),
            holder: Holder::new("acme", "sync").unwrap(),
            entropy,
        }
    }

    fn draw(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes).unwrap();
        bytes
    }

    fn tagger(&self) -> Tagger {
        Tagger::new(&self.tag_key)
    }

    fn account(&self) -> AccountTag {
        self.tagger().account(&Account::new(self.app.clone(), self.user.clone()))
    }

    fn names(&self) -> Names<'_> {
        let user = Some(&self.user);
        Names::of(Some(&self.app), user, Some(&self.holder), ["api", "refresh_token"])
    }

    fn pair(&self) -> Pair<'_> {
        Pair {
            names: self.names(),
            access_token: ACCESS_TOKEN,
            refresh_token: Some(REFRESH_TOKEN),
            id_token: None,
            token_type: "Bearer",
            token_endpoint: Some("https://login.example/token"),
            instance_url: Some("https://golden.example"),
            fields: List(vec![("id", "\"https://login.example/id\"")]),
            access_scopes: None,
        }
    }

    fn seal(&self, clear: &Clear, plain: &impl Plain) -> Vec<u8> {
        let sealer = Sealer::new(self.store, &self.data_key);
        sealer.seal(clear, NOW_MS, plain, &self.entropy).unwrap()
    }

    /// The intent whose LSN is 2; or, without a user, one under a provisional account.
    fn intent(&self, provisional: Option<AccountTag>) -> Vec<u8> {
        let tagger = self.tagger();
        let clear = Clear::Intent(Intent {
            prefix: Prefix {
                account: provisional.unwrap_or_else(|| self.account()),
                grant: GrantId::NONE,
                generation: Generation::NONE,
                flags: provisional.map_or(Flags::NONE, |_| Flags::PROVISIONAL),
                op: OpId::NONE,
            },
            action: Action::Exchange,
            app: tagger.app(&self.app),
            holder: tagger.holder(&self.holder),
            presented: Fingerprint::NONE,
            deadline_ms: NOW_MS + 60_000,
            expected: Lsn::NONE,
            owner: OwnerId::from_bytes(self.draw()),
            lease_ms: 0,
        });
        let user = if provisional.is_some() { None } else { Some(&self.user) };
        self.seal(&clear, &Names::of(Some(&self.app), user, Some(&self.holder), []))
    }

    fn prefix(&self, generation: u32, flags: Flags, op: u64) -> Prefix {
        let (account, generation) = (self.account(), Generation(generation));
        Prefix { account, grant: GrantId(2), generation, flags, op: OpId(op) }
    }

    fn issued(&self) -> Vec<u8> {
        let tagger = self.tagger();
        let clear = Clear::Issued(Issued {
            prefix: self.prefix(1, Flags::REFRESH | Flags::EXPIRES_ASSUMED, 2),
            app: tagger.app(&self.app),
            holder: tagger.holder(&self.holder),
            access: tagger.fingerprint(ACCESS_TOKEN),
            refresh: tagger.fingerprint(REFRESH_TOKEN),
            issued_at_ms: NOW_MS,
            expires_at_ms: NOW_MS + 7_200_000,
            adopt_by_ms: NOW_MS + 86_400_000,
            fence: Lsn(2),
            from: AccountTag::NONE,
            first: Fingerprint::NONE,
            earlier_lapse_at_ms: 0,
        });
        self.seal(&clear, &self.pair())
    }

    fn adopted(&self) -> Vec<u8> {
        let holder = self.tagger().holder(&self.holder);
        let clear = Clear::Adopted(Adopted { prefix: self.prefix(0, Flags::NONE, 0), holder });
        self.seal(&clear, &Names::of(None, None, Some(&self.holder), []))
    }

    fn opened(&self) -> Vec<u8> {
        let clear = Clear::Opened(Opened {
            predecessor: Nonce::NONE,
            predecessor_end: 0,
            predecessor_lsn: Lsn::NONE,
            host: self.tagger().host("golden"),
            owner: OwnerId::from_bytes(self.draw()),
            incarnation: 1,
            reason: OpenedReason::Created,
        });
        encode_record(&clear, NOW_MS, 0, &[])
    }

    fn wrapped_data_key(&self) -> WrappedKey {
        self.kek.wrap_data_key(self.store, &self.data_key, &self.entropy).unwrap()
    }

    fn wrapped_tag_key(&self) -> WrappedKey {
        self.kek.wrap_tag_key(self.store, &self.tag_key, &self.entropy).unwrap()
    }
}

/// A segment as `Create` and three batches leave it, closed.
fn segment(story: &Story) -> Vec<u8> {
    let header = SegmentHeader {
        block_bytes: BLOCK_BYTES,
        batch_bytes_max: 8192,
        segment_bytes: 4096 + 16 * 512,
        store: story.store,
        nonce: Nonce::from_bytes(story.draw()),
        number: 1,
        created_at_ms: NOW_MS,
        incarnation: 1,
        tag_key: story.wrapped_tag_key(),
        data_keys: vec![story.wrapped_data_key()],
    };
    let close = Clear::Marker(Marker { reason: MarkerReason::Close });
    let batches = [
        vec![story.opened()],
        vec![story.intent(None)],
        vec![story.issued(), story.adopted()],
        vec![encode_record(&close, NOW_MS, 0, &[])],
    ];
    let mac_key = MacKey::new(&story.data_key);
    let mut buffer = BatchBuffer::new(header.batch_bytes_max);
    let mut bytes = header.encode();
    let mut lsn = Lsn::NONE;
    for records in batches {
        buffer.clear();
        for record in records {
            lsn = lsn.plus(1);
            buffer.push(lsn, &record, body_crc(&record)).unwrap();
        }
        // Each batch was written when all before it was durable.
        let offset = bytes.len() as u64;
        let batch = buffer.finish(header.nonce, offset, offset, BLOCK_BYTES, &mac_key);
        bytes.extend_from_slice(batch);
    }
    bytes.resize(usize::try_from(header.segment_bytes).unwrap(), 0);
    bytes
}

/// A snapshot of an account, and of a provisional one whose exchange is open.
fn snapshot(story: &Story) -> Vec<u8> {
    let header = SnapshotHeader {
        store: story.store,
        nonce: Nonce::from_bytes(story.draw()),
        lsn: Lsn(9),
        created_at_ms: NOW_MS,
        tail: Nonce::from_bytes(story.draw()),
        tail_number: 2,
        tag_key: story.wrapped_tag_key(),
        claimed: Lsn(5),
    };
    let at = |lsn, mut record: Vec<u8>| {
        set_lsn(&mut record, Lsn(lsn));
        record
    };
    let provisional = AccountTag::from_bytes(story.draw());
    let app = story.tagger().app(&story.app);
    let mut accounts = [
        (story.account(), Lsn(4), vec![at(3, story.issued()), at(4, story.adopted())]),
        (provisional, Lsn(7), vec![at(7, story.intent(Some(provisional)))]),
    ];
    accounts.sort_by_key(|account| account.0);

    let mut bytes = header.encode();
    let mut block = AccountsBlock::new();
    for (account, version, records) in &accounts {
        block.push(*account, *version, app, records.iter().map(Vec::as_slice)).unwrap();
    }
    let offset = bytes.len() as u64;
    let (block, item) = block.finish(header.nonce, offset);
    bytes.extend_from_slice(block);

    let index = bytes.len() as u64;
    let mut block = ItemsBlock::new();
    block.push(&item);
    bytes.extend_from_slice(block.finish(header.nonce, index));
    let keys = bytes.len() as u64;
    let mut block = ItemsBlock::new();
    block.push(&story.wrapped_data_key());
    bytes.extend_from_slice(block.finish(header.nonce, keys));
    let open = bytes.len() as u64;
    let mut block = ItemsBlock::new();
    block.push(&OpenItem { account: provisional, operations: 1, orphans: 0 });
    bytes.extend_from_slice(block.finish(header.nonce, open));
    let end = bytes.len() as u64;
    let footer = Footer { index, keys, open, accounts: 2, records: 3, end, lsn: header.lsn };
    bytes.extend_from_slice(&footer.encode(header.nonce));
    bytes
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Says whether the golden files are to be written anew, which nobody does by accident.
fn regenerating() -> bool {
    let asked = std::env::var_os("TOKENWAL_REGENERATE_GOLDEN").is_some_and(|value| value == "1");
    assert!(
        !asked || std::env::var_os("CI").is_none(),
        "golden files are the format; they are never made anew in CI"
    );
    asked
}

fn compare(name: &str, made: &[u8]) {
    let path = path(&format!("tests/golden/{name}"));
    if regenerating() {
        std::fs::write(&path, made).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    let differs = golden.iter().zip(made).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte in which {name} differs from what the code makes");
    assert_eq!(golden.len(), made.len(), "the length of {name}");
}

#[test]
fn the_code_still_writes_the_golden_segment() {
    let made = segment(&Story::new());
    compare("first.twj", &made);
    let written = String::from_utf8_lossy(&made).into_owned();
    for hidden in [ACCESS_TOKEN, REFRESH_TOKEN, "salesforce", "acme"] {
        assert!(!written.contains(hidden), "{hidden} stands there in the clear");
    }
}

#[test]
fn the_code_still_writes_the_golden_snapshot() {
    compare("first.tws", &snapshot(&Story::new()));
}

#[test]
fn the_golden_segment_is_read() {
    let bytes = std::fs::read(path("tests/golden/first.twj")).unwrap();
    let header = SegmentHeader::parse(&bytes).unwrap();
    assert_eq!(bytes.len() as u64, header.segment_bytes);
    let kek = WrappingKey::new(&KEK);
    let key = kek.unwrap_data_key(header.store, &header.data_keys[0]).unwrap();
    let tagger = Tagger::new(&kek.unwrap_tag_key(header.store, &header.tag_key).unwrap());
    let (sealer, mac_key) = (Sealer::new(header.store, &key), MacKey::new(&key));
    let geometry = header.geometry();

    let mut offset = 4096;
    let mut expect = Expect::FirstOfSegment;
    let mut clears = Vec::new();
    while let Some(batch) = BatchHeader::parse(&bytes[offset..], &geometry, offset as u64) {
        let place = offset as u64;
        assert_eq!(batch.durable_through, place);
        assert!(batch.authenticate(&bytes[offset..], header.nonce, place, &mac_key));
        let mut frames = Frames::new(&bytes[offset..], &batch, header.nonce, place, expect);
        for frame in frames.by_ref() {
            let record = frame.unwrap().record;
            if !record.kind().is_structural() {
                check_sealed(&record, &sealer.open(&record).unwrap());
            }
            clears.push(record.clear);
        }
        expect = frames.expect();
        offset = usize::try_from(geometry.next_block(frames.offset())).unwrap();
    }
    assert!(bytes[offset..].iter().all(|byte| *byte == 0));

    let [
        Clear::Opened(_),
        Clear::Intent(intent),
        Clear::Issued(issued),
        Clear::Adopted(adopted),
        marker,
    ] = clears[..]
    else {
        panic!("other records: {clears:?}")
    };
    assert_eq!(marker, Clear::Marker(Marker { reason: MarkerReason::Close }));
    let app = App::new("salesforce", "3MVG9golden").unwrap();
    let holder: HolderTag = tagger.holder(&Holder::new("acme", "sync").unwrap());
    let app_tag: AppTag = tagger.app(&app);
    assert_eq!((intent.app, intent.holder, adopted.holder), (app_tag, holder, holder));
    assert_eq!(issued.access, tagger.fingerprint(ACCESS_TOKEN));
    assert_ne!(tagger.host("golden"), HostTag::NONE);
}

/// Opens what the golden files seal, and finds the story's names and tokens.
fn check_sealed(record: &Record<'_>, plain: &[u8]) {
    match record.clear {
        Clear::Intent(_) | Clear::Adopted(_) => {
            let names = Names::decode(plain).unwrap();
            assert_eq!(names.holder, Some(("acme", "sync")));
        }
        Clear::Issued(_) => {
            let pair = Pair::decode(plain).unwrap();
            assert_eq!(pair.access_token, ACCESS_TOKEN);
            assert_eq!(pair.refresh_token, Some(REFRESH_TOKEN));
            assert_eq!(pair.names.scopes.0, ["api", "refresh_token"]);
            assert_eq!(pair.fields.0, [("id", "\"https://login.example/id\"")]);
        }
        _ => assert_eq!(plain, Nothing.to_plain().as_slice()),
    }
}

#[test]
fn the_golden_snapshot_is_read() {
    let bytes = std::fs::read(path("tests/golden/first.tws")).unwrap();
    let header = SnapshotHeader::parse(&bytes).unwrap();
    let tail = &bytes[bytes.len() - FOOTER_BYTES..];
    let footer = Footer::parse(tail, &header, bytes.len() as u64).unwrap();
    let kek = WrappingKey::new(&KEK);

    let end = usize::try_from(footer.end).unwrap();
    let (mut rest, mut offset) = (&bytes[4096..end], 4096);
    let mut kinds = Vec::new();
    let (mut sealer, mut records) = (None, Vec::new());
    while !rest.is_empty() {
        let (block, behind) = Block::parse(rest, header.nonce, offset).unwrap();
        block.check(header.lsn).unwrap();
        kinds.push(block.kind);
        for account in block.accounts() {
            records.extend(account.unwrap().records(header.lsn).map(|record| record.unwrap()));
        }
        for key in block.items::<WrappedKey>() {
            let key = kek.unwrap_data_key(header.store, &key.unwrap()).unwrap();
            sealer = Some(Sealer::new(header.store, &key));
        }
        offset += (rest.len() - behind.len()) as u64;
        rest = behind;
    }
    assert_eq!(kinds, BlockKind::ALL);
    assert_eq!(records.len() as u64, footer.records);
    let sealer = sealer.unwrap();
    records.iter().for_each(|record| check_sealed(record, &sealer.open(record).unwrap()));
}

#[test]
fn the_documents_dump_is_the_golden_segment() {
    const FENCE: &str = "```hexdump\n";
    let golden = std::fs::read(path("tests/golden/first.twj")).unwrap();
    let made = dump::segment(&golden);
    let document = if regenerating() {
        let (before, rest) = DOCUMENT.split_once(FENCE).unwrap();
        let (_, after) = rest.split_once("```").unwrap();
        let document = format!("{before}{FENCE}{made}```{after}");
        std::fs::write(path("journal-format.md"), &document).unwrap();
        document
    } else {
        DOCUMENT.to_owned()
    };
    let (dump, _) = document.split_once(FENCE).unwrap().1.split_once("```").unwrap();
    assert_eq!(dump, made, "the annotations");
    assert_eq!(
        dump::bytes(dump),
        golden[4096..],
        "the bytes, read from the document's lines alone"
    );
}
