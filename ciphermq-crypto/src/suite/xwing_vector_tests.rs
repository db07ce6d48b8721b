//! Test vectors of `XWING-AES256GCM`: published ones, and `docs/test-vectors/xwing-aes256gcm.json`.
//!
//! The latter is generated here from fixed inputs. With `CIPHERMQ_WRITE_VECTORS=1` in the
//! environment the file is written instead of compared.

use std::path::Path;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Kem, OpModeS, Serializable as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{OpenKeyError, SessionKey, Suite, seal_session_key};
use crate::keys::{Keyring, PrivateKey, RecipientKey, XWingPrivateKey};
use crate::vector_tests::{FixedRng, hex, name, to_hex};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/test-vectors/xwing-aes256gcm.json"
);

/// The three vectors of draft-connolly-cfrg-xwing-kem, appendix C, as the crate `x-wing` 0.1.1 has
/// them in `tests/test-vectors.json`: seed, randomness of the encapsulation, SHA-256 of the public
/// key and of the ciphertext. The shared secret is in no message; the vector of HPKE below verifies
/// it.
const KEM: [[&str; 4]; 3] = [
    [
        "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26",
        "3cb1eea988004b93103cfb0aeefd2a686e01fa4a58e8a3639ca8a1e3f9ae57e235b8cc873c23dc62b8d260169afa2f75ab916a58d974918835d25e6a435085b2",
        "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb",
        "17cd532d657e44c897ca6583e548a5424fc70bf54f99515a4d2bcf99e3469f33",
    ],
    [
        "badfd6dfaac359a5efbb7bcc4b59d538df9a04302e10c8bc1cbf1a0b3a5120ea",
        "17cda7cfad765f5623474d368ccca8af0007cd9f5e4c849f167a580b14aabdefaee7eef47cb0fca9767be1fda69419dfb927e9df07348b196691abaeb580b32d",
        "c42ba5f8430d7d2c83739338203819f090e8303ce9c8b02107c272bfa5376916",
        "1661ea86d608a1924ba30840cb0a65f13ae051e3aec9cf0f064efc0bc92f2154",
    ],
    [
        "ef58538b8d23f87732ea63b02b4fa0f4873360e2841928cd60dd4cee8cc0d4c9",
        "22a96188d032675c8ac850933c7aff1533b94c834adbb69c6115bad4692d8619f90b0cdf8a7b9c264029ac185b70b83f2801f2f4b3f70c593ea3aeeb613a7f1b",
        "6b080d6b84f095342092fa7a22423e58bd681397ad0ef00eac92bd254db4fa95",
        "d3ca5578500344b5896cffc4fd740c9311946b82951df155e6fd86a7966b43c6",
    ],
];

fn key(seed: &str) -> XWingPrivateKey {
    XWingPrivateKey::from_bytes(&hex(seed).try_into().unwrap())
}

#[test]
fn keys_and_ciphertexts_match_the_draft() {
    for [seed, randomness, public, ciphertext] in KEM {
        let key = key(seed);
        assert_eq!(Sha256::digest(key.public_key().as_bytes())[..], hex(public));
        let receiver = key.public_key().clone().into();
        let randomness = hex(randomness);
        let sealed = seal_session_key(
            &receiver,
            b"",
            &Zeroizing::new([0; 32]),
            &mut FixedRng::new(&randomness),
        )
        .unwrap();
        let (enc, sealed) = sealed.split_at(1120);
        assert_eq!(Sha256::digest(enc)[..], hex(ciphertext));
        assert_eq!(sealed.len(), 48);
    }
}

/// The vectors of draft-ietf-hpke-pq, as the repository of the crate `hpke` has them in
/// `test-vectors/pq-53273fb.json`: mode 0, KEM 0x647a, KDF 0x0001, the first encryption. They have
/// no vector for this KEM and AES-256-GCM; AEAD 0x0003 goes through the same key schedule, and
/// `x25519_aes256gcm` tests the cipher. In these vectors `info` and the plaintext are the RFC's, as
/// hexadecimal text.
#[test]
fn the_key_schedule_matches_hpke() {
    let key = key("3ec47fa82dd5689d27c6190e724c74ec8f608df3331ce331929e37b829676630");
    let randomness = hex(
        "2a1c0a3745fe8a48fb62034d300f54dfe1974a5b2e169e580a8789cb1cf5fd190fc00f3fd899594e01a8b15334b9f3fa03d8de44da86e19f5776850fb689e6c8",
    );
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeS::Base,
        &XWing::sk_to_pk(&key.expand().unwrap()),
        b"4f6465206f6e2061204772656369616e2055726e",
        b"4265617574792069732074727574682c20747275746820626561757479",
        b"Count-0",
        &mut FixedRng::new(&randomness),
    )
    .unwrap();
    let enc = enc.to_bytes();
    assert_eq!(
        enc[..32],
        hex("26759c7b22923ea5cc9c78e3e14c8fc62dcb0a66ce44460966978a7fe9685e0c")
    );
    assert_eq!(
        enc[1088..],
        hex("36b733dfc09b8299a9d7b19e68c09ad82703f9b47d34d1a3cbafe42c73f57d0e")
    );
    assert_eq!(
        ciphertext,
        hex(
            "c5c591f99092d5e38df0a52699af249c66f8275a863423c076de8147a53e65cc584041c963b77a7e59ea93841b1339b5efda8909b71f74bb0073ad62e899de310c1566dea2fd29eba377"
        )
    );
}

/// The contents of the file. All bytes are hexadecimal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    about: Vec<String>,
    suite: String,
    receiver: Receiver,
    session_keys: Vec<Sealed>,
    must_fail: Vec<MustFail>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Receiver {
    client_id: String,
    seed: String,
    public_key: String,
    key_id: String,
    /// A second key of the same receiver, which opens none of these.
    other_seed: String,
    other_key_id: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    sender_client_id: String,
    session_time: String,
    session_key: String,
    /// 64 bytes: 32 of ML-KEM-768's encapsulation, 32 of the ephemeral X25519 private key.
    encapsulation_randomness: String,
    info: String,
    enc_session_key: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MustFail {
    about: String,
    /// `not_authentic` or `no_private_key`
    expect: String,
    key_id: String,
    info: String,
    enc_session_key: String,
}

fn sealed(index: usize, sender: &str, millis: i64) -> Sealed {
    let [seed, ..] = KEM[0];
    let [_, randomness, ..] = KEM[index];
    let receiver: RecipientKey = key(seed).public_key().clone().into();
    let start = Timestamp::from_millisecond(millis).unwrap();
    let info = crate::session::info_of(
        Suite::XWingAes256Gcm,
        &name(sender),
        &name("receiver_1"),
        receiver.key_id(),
        start,
    );
    let session_key = Zeroizing::new([0x70 + u8::try_from(index).unwrap(); 32]);
    let bytes = hex(randomness);
    let enc_session_key =
        seal_session_key(&receiver, &info, &session_key, &mut FixedRng::new(&bytes)).unwrap();
    Sealed {
        sender_client_id: sender.to_owned(),
        session_time: crate::encoding::format_time(start),
        session_key: to_hex(*session_key),
        encapsulation_randomness: randomness.to_owned(),
        info: to_hex(&info),
        enc_session_key: to_hex(&enc_session_key),
    }
}

fn vectors() -> Vectors {
    let [seed, other_seed] = [KEM[0][0], KEM[1][0]];
    let public = key(seed).public_key().clone();
    let other_key_id = key(other_seed).public_key().key_id().to_string();
    let session_keys = vec![
        sealed(0, "sender_1", 1_757_314_980_000),
        sealed(1, "sender_1", 1_757_315_580_001),
        sealed(2, "Sender_№2", 1_757_314_980_000),
    ];
    let mut must_fail = Vec::new();
    let mut case = |about: &str, expect: &str, alter: &dyn Fn(&mut MustFail, &mut Vec<u8>)| {
        let mut bytes = hex(&session_keys[0].enc_session_key);
        let mut case = MustFail {
            about: about.to_owned(),
            expect: expect.to_owned(),
            key_id: public.key_id().to_string(),
            info: session_keys[0].info.clone(),
            enc_session_key: String::new(),
        };
        alter(&mut case, &mut bytes);
        case.enc_session_key = to_hex(&bytes);
        must_fail.push(case);
    };
    case(
        "a bit of ML-KEM-768's ciphertext",
        "not_authentic",
        &|_, bytes| {
            bytes[0] ^= 1;
        },
    );
    case(
        "the last bit of ML-KEM-768's ciphertext",
        "not_authentic",
        &|_, bytes| {
            bytes[1087] ^= 0x80;
        },
    );
    case(
        "a bit of the ephemeral X25519 key",
        "not_authentic",
        &|_, bytes| {
            bytes[1088] ^= 1;
        },
    );
    case(
        "the top bit of the ephemeral X25519 key, which X25519 does not look at",
        "not_authentic",
        &|_, bytes| bytes[1119] ^= 0x80,
    );
    case(
        "an ephemeral X25519 key of zeros",
        "not_authentic",
        &|_, bytes| {
            bytes[1088..1120].fill(0);
        },
    );
    case(
        "a bit of the sealed session key",
        "not_authentic",
        &|_, bytes| {
            bytes[1120] ^= 1;
        },
    );
    case("a bit of the tag", "not_authentic", &|_, bytes| {
        bytes[1167] ^= 1;
    });
    case(
        "a byte is missing at the end",
        "not_authentic",
        &|_, bytes| {
            bytes.truncate(1167);
        },
    );
    case(
        "a byte too many at the end",
        "not_authentic",
        &|_, bytes| {
            bytes.push(0);
        },
    );
    case(
        "the encapsulated key alone",
        "not_authentic",
        &|_, bytes| {
            bytes.truncate(1120);
        },
    );
    case(
        "the length of the other suite",
        "not_authentic",
        &|_, bytes| {
            bytes.truncate(80);
        },
    );
    case("nothing", "not_authentic", &|_, bytes| bytes.clear());
    case(
        "the session of another sender",
        "not_authentic",
        &|case, _| {
            case.info.clone_from(&session_keys[2].info);
        },
    );
    case(
        "the session of another time",
        "not_authentic",
        &|case, _| {
            case.info.clone_from(&session_keys[1].info);
        },
    );
    case(
        "another of the receiver's keys is named",
        "not_authentic",
        &|case, _| {
            case.key_id.clone_from(&other_key_id);
        },
    );
    case(
        "a key that the receiver has not is named",
        "no_private_key",
        &|case, _| {
            case.key_id = "0123456789abcdef".to_owned();
        },
    );
    Vectors {
        about: [
            "CipherMQ test vectors of how XWING-AES256GCM seals session keys; docs/cryptography.md \
             says what they mean.",
            "Everything else of a message is as with X25519-AES256GCM: see x25519-aes256gcm.json.",
            "Bytes are hexadecimal. Seeds and randomness are those of \
             draft-connolly-cfrg-xwing-kem, appendix C.",
            "must_fail: what a receiver that has both keys must answer.",
            "Never use a key of this file.",
        ]
        .map(str::to_owned)
        .to_vec(),
        suite: Suite::XWingAes256Gcm.to_string(),
        receiver: Receiver {
            client_id: "receiver_1".to_owned(),
            seed: seed.to_owned(),
            public_key: to_hex(public.as_bytes()),
            key_id: public.key_id().to_string(),
            other_seed: other_seed.to_owned(),
            other_key_id,
        },
        session_keys,
        must_fail,
    }
}

fn file() -> Vectors {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

fn keyring(receiver: &Receiver) -> Keyring {
    Keyring::new(PrivateKey::from_bytes(&[1; 32]))
        .with_x_wing(key(&receiver.seed))
        .with_older_x_wing(key(&receiver.other_seed))
}

fn open(
    receiver: &Receiver,
    key_id: &str,
    info: &str,
    sealed: &str,
) -> Result<SessionKey, OpenKeyError> {
    let suite = Suite::XWingAes256Gcm;
    suite.open_session_key(
        &keyring(receiver),
        key_id.parse().unwrap(),
        &hex(info),
        &hex(sealed),
    )
}

#[test]
fn the_file_matches_this_version() {
    if std::env::var_os("CIPHERMQ_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        std::fs::write(
            FILE,
            serde_json::to_string_pretty(&vectors()).unwrap() + "\n",
        )
        .unwrap();
    }
    assert_eq!(file(), vectors());
}

#[test]
fn every_session_key_of_the_file_opens() {
    let file = file();
    assert_eq!(file.session_keys.len(), 3);
    for sealed in &file.session_keys {
        let opened = open(
            &file.receiver,
            &file.receiver.key_id,
            &sealed.info,
            &sealed.enc_session_key,
        );
        assert_eq!(to_hex(*opened.unwrap()), sealed.session_key);
    }
}

#[test]
fn every_bad_session_key_of_the_file_fails_as_stated() {
    let file = file();
    assert_eq!(file.must_fail.len(), 16);
    for bad in &file.must_fail {
        let seen = match open(&file.receiver, &bad.key_id, &bad.info, &bad.enc_session_key) {
            Err(OpenKeyError::NotAuthentic) => "not_authentic",
            Err(OpenKeyError::NoPrivateKey) => "no_private_key",
            Ok(_) => "opened",
        };
        assert_eq!(seen, bad.expect, "{}", bad.about);
    }
}
