use super::*;
use crate::codec::{Nothing, Refusal};
use crate::format::record::{RECORD_BYTES_MAX, set_lsn};
use crate::format::samples::{Seeded, any_clear};
use crate::format::segment::WrappedKey;
use crate::ids::{Account, App, Holder, Lsn, User};
use proptest::prelude::*;

const STORE: StoreId = StoreId::from_bytes([1; 16]);

fn data_key(seed: u64) -> DataKey {
    DataKey::generate(&Seeded(seed.into())).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_cipher_is_that_of_rfc_8452() {
    // Appendix C.2, the first case: empty plaintext, empty associated data.
    let mut key = [0; 32];
    key[0] = 1;
    let mut nonce = [0; 12];
    nonce[0] = 3;
    let nonce = AeadNonce::assume_unique_for_key(nonce);
    let tag = aead_key(&key).seal_in_place_separate_tag(nonce, Aad::empty(), &mut []).unwrap();
    assert_eq!(hex(tag.as_ref()), "07f5f4169bbf55a8400cd47ea6fd400f");
}

#[test]
fn ids_and_tags_are_what_python_computes() {
    // hmac.new(b"\x11" * 32, ..., "sha256"), each text behind its length as "<I".
    let bytes = [0x11; 32];
    let id = WrappingKey::new(&bytes).id();
    assert_eq!(hex(&id.to_le_bytes()), "a59ef8420ec9fddd");
    let tagger = Tagger::new(&TagKey(Zeroizing::new(bytes)));
    let app = App::new("salesforce", "client").unwrap();
    assert_eq!(tagger.app(&app).to_string(), "68921eb8c18cedd099d960ec582f0322");
    let account = Account::new(app, User::new("00D/005").unwrap());
    assert_eq!(tagger.account(&account).to_string(), "0aa87542be39aa3bdf2df4bf55f284ad");
    let holder = Holder::new("acme", "sync").unwrap();
    assert_eq!(tagger.holder(&holder).to_string(), "53d57cd70f9826d5529d1eb5c60c5440");
    assert_eq!(tagger.host("db1").to_string(), "30e09ac8381076c795aaa32dde4788cf");
    assert_eq!(tagger.fingerprint("secret").to_string(), "91b5cf6cae9b023fbc770229f0933fa8");
}

#[test]
fn texts_in_a_tag_do_not_run_together() {
    let tagger = Tagger::new(&TagKey::generate(&Seeded::default()).unwrap());
    let one = Holder::new("ab", "c").unwrap();
    let two = Holder::new("a", "bc").unwrap();
    assert_ne!(tagger.holder(&one), tagger.holder(&two));
}

#[test]
fn wrapped_keys_open_only_where_they_were_made() {
    let entropy = Seeded::default();
    let kek = WrappingKey::new(&[0x11; 32]);
    let key = data_key(1);
    let wrapped = kek.wrap_data_key(STORE, &key, &entropy).unwrap();
    let opened = kek.unwrap_data_key(STORE, &wrapped).unwrap();
    assert_eq!((opened.id(), &*opened.bytes), (key.id(), &*key.bytes));

    let refused = |kek: &WrappingKey, store, wrapped: &WrappedKey| {
        kek.unwrap_data_key(store, wrapped).map(|key| key.id()) == Err(NotAuthentic)
    };
    assert!(refused(&WrappingKey::new(&[0x12; 32]), STORE, &wrapped));
    assert!(refused(&kek, StoreId::from_bytes([2; 16]), &wrapped));
    assert!(refused(&kek, STORE, &WrappedKey { key_id: wrapped.key_id ^ 1, ..wrapped }));
    assert!(refused(&kek, STORE, &WrappedKey { kek_id: wrapped.kek_id ^ 1, ..wrapped }));
    let mut changed = wrapped;
    changed.ciphertext[47] ^= 1;
    assert!(refused(&kek, STORE, &changed));

    // A tag key is no data key, nor the other way round.
    let tag_key = TagKey::generate(&entropy).unwrap();
    let wrapped_tag = kek.wrap_tag_key(STORE, &tag_key, &entropy).unwrap();
    assert_eq!(*kek.unwrap_tag_key(STORE, &wrapped_tag).unwrap().0, *tag_key.0);
    assert!(refused(&kek, STORE, &wrapped_tag));
    assert!(kek.unwrap_tag_key(STORE, &wrapped).is_err());
    assert_eq!(wrapped_tag.key_id, 0);
}

#[test]
fn a_record_that_would_be_too_long_is_refused() {
    let sealer = Sealer::new(STORE, &data_key(1));
    let clear = crate::format::samples::clear_of(
        crate::format::record::Kind::Refused,
        [0; CLEAR_BYTES_MAX],
    );
    let room = RECORD_BYTES_MAX - 32 - 48 - 28;
    // Two lengths of five bytes and one, and an option of one.
    let text = "x".repeat(room - 5 - 1 - 1);
    let refusal = Refusal { error: &text, description: "", request_id: None };
    let record = sealer.seal(&clear, 1, &refusal, &Seeded::default()).unwrap();
    assert_eq!(record.len(), RECORD_BYTES_MAX);
    let refusal = Refusal { error: &text, description: "y", request_id: None };
    let refused = sealer.seal(&clear, 1, &refusal, &Seeded::default());
    assert!(matches!(refused, Err(SealError::TooLong)));
}

#[test]
fn keys_are_not_printed() {
    let key = DataKey { id: 5, bytes: Zeroizing::new([0x5A; 32]) };
    let sealer = Sealer::new(STORE, &key);
    let mac = MacKey::new(&key);
    let kek = WrappingKey::new(&[0x5A; 32]);
    let tag = TagKey(Zeroizing::new([0x5A; 32]));
    let tagger = Tagger::new(&tag);
    let printed = format!("{key:?} {sealer:?} {mac:?} {kek:?} {tag:?} {tagger:?}");
    assert!(!printed.contains("90") && !printed.to_lowercase().contains("5a5a"), "{printed}");
}

proptest! {
    #[test]
    fn sealed_parts_open_only_with_all_that_they_authenticate(
        clear in any_clear().prop_filter("sealed", |clear| !clear.kind().is_structural()),
        at_ms: u64,
        text in ".*",
        position: prop::sample::Index,
        change in 1..=u8::MAX,
        lsn: u64,
    ) {
        let key = data_key(1);
        let sealer = Sealer::new(STORE, &key);
        let refusal = Refusal { error: &text, description: "", request_id: None };
        let mut bytes = sealer.seal(&clear, at_ms, &refusal, &Seeded::default()).unwrap();
        // A record may get any place: what is sealed is free of position.
        set_lsn(&mut bytes, Lsn(lsn));
        let record = Record::parse(&bytes).unwrap();
        prop_assert_eq!(record.clear, clear);
        let plain = sealer.open(&record).unwrap();
        prop_assert_eq!(Refusal::decode(&plain).unwrap(), refusal);

        let stranger = Sealer::new(StoreId::from_bytes([2; 16]), &key);
        prop_assert_eq!(stranger.open(&record).map(drop), Err(NotAuthentic));
        let stranger = Sealer::new(STORE, &data_key(2));
        prop_assert_eq!(stranger.open(&record).map(drop), Err(NotAuthentic));

        // Every byte but the LSN's is authenticated or structural.
        let at = position.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert_eq!(sealer.open(&record).is_ok(), (8..16).contains(&at));
        }
    }

    #[test]
    fn nothing_sealed_still_authenticates(
        clear in any_clear().prop_filter("sealed", |clear| !clear.kind().is_structural()),
    ) {
        let sealer = Sealer::new(STORE, &data_key(1));
        let bytes = sealer.seal(&clear, 0, &Nothing, &Seeded::default()).unwrap();
        let record = Record::parse(&bytes).unwrap();
        prop_assert_eq!(record.sealed_part.len(), 28);
        prop_assert!(sealer.open(&record).unwrap().is_empty());
    }
}
