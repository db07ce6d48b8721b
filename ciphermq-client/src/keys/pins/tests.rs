//! Pins in memory and in a folder.

use std::fs;

use super::*;
use ciphermq_crypto::PublicKey;
use ciphermq_crypto::identity::fingerprint;

fn receiver() -> ClientId {
    ClientId::new("receiver_1").unwrap()
}

fn signed(epoch: u64) -> Pin {
    Pin::Signed {
        epoch,
        keys: "k".to_owned(),
    }
}

fn is_older(result: Result<(), PinsError>) -> bool {
    matches!(
        result,
        Err(PinsError::Refused {
            reason: PinError::Older { .. },
            ..
        })
    )
}

#[tokio::test]
async fn pins_behave_alike_in_memory_and_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for pins in [Pins::new(None), Pins::new(Some(folder.path().to_owned()))] {
        let unsigned = Pin::unsigned(&PublicKey::from_bytes([7; 32]));
        pins.accept(&receiver(), &unsigned).await.unwrap();
        pins.accept(&receiver(), &signed(10)).await.unwrap();
        pins.accept(&receiver(), &signed(11)).await.unwrap();
        assert!(is_older(pins.accept(&receiver(), &signed(10)).await));
        assert!(matches!(
            pins.accept(&receiver(), &unsigned).await,
            Err(PinsError::Refused {
                reason: PinError::NoLongerSigned,
                ..
            })
        ));
        pins.accept(&receiver(), &signed(11)).await.unwrap();
    }
    // A new process finds them.
    let again = Pins::new(Some(folder.path().to_owned()));
    assert!(is_older(again.accept(&receiver(), &signed(10)).await));
    again.accept(&receiver(), &signed(12)).await.unwrap();
    assert!(folder.path().join("receiver_1_public.pin.json").is_file());
}

#[tokio::test]
async fn the_pin_of_a_long_name_is_found_where_earlier_versions_kept_it() {
    let folder = tempfile::tempdir().unwrap();
    let long = ClientId::new(&"x".repeat(250)).unwrap();
    let hash = fingerprint(long.as_str().as_bytes()).to_string();
    let former = folder.path().join(format!("{hash}_public.pin.json"));
    fs::write(
        &former,
        "{\"kind\":\"signed\",\"epoch\":10,\"keys\":\"k\"}\n",
    )
    .unwrap();
    let pins = Pins::new(Some(folder.path().to_owned()));
    assert!(is_older(pins.accept(&long, &signed(9)).await));
    pins.accept(&long, &signed(10)).await.unwrap();
    pins.accept(&long, &signed(11)).await.unwrap();
    assert!(is_older(pins.accept(&long, &signed(10)).await));
    // The client whose name is the hash has its own pin there, which develops independently.
    let namesake = ClientId::new(&hash).unwrap();
    pins.accept(&namesake, &signed(20)).await.unwrap();
    pins.accept(&long, &signed(12)).await.unwrap();
    assert!(is_older(pins.accept(&namesake, &signed(19)).await));
}

#[tokio::test]
async fn a_damaged_pin_is_not_treated_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receiver_1_public.pin.json");
    let pins = Pins::new(Some(folder.path().to_owned()));
    let refused = async || {
        let error = pins.accept(&receiver(), &signed(1)).await.unwrap_err();
        assert!(matches!(&error, PinsError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("receiver_1_public.pin.json"));
    };
    fs::write(&path, "").unwrap();
    refused().await;
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_senders_never_lose_the_newest_pin() {
    let folder = tempfile::tempdir().unwrap();
    let one = Pins::new(Some(folder.path().to_owned()));
    let mut senders = tokio::task::JoinSet::new();
    for epoch in 1..=64 {
        // Half of them share their pins, as publishers of one client do.
        let pins = if epoch % 2 == 0 {
            one.clone()
        } else {
            Pins::new(Some(folder.path().to_owned()))
        };
        senders.spawn(async move {
            match pins.accept(&receiver(), &signed(epoch)).await {
                Ok(()) | Err(PinsError::Refused { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let pins = Pins::new(Some(folder.path().to_owned()));
    assert!(is_older(pins.accept(&receiver(), &signed(63)).await));
    pins.accept(&receiver(), &signed(64)).await.unwrap();
}

#[test]
fn a_held_lock_is_an_error_unless_the_key_is_pinned_already() {
    let folder = tempfile::tempdir().unwrap();
    let short = Duration::from_millis(30);
    pin(folder.path(), &receiver(), &signed(1), short).unwrap();
    let _held = FolderLock::wait(folder.path(), short).unwrap();
    let error = pin(folder.path(), &receiver(), &signed(2), short).unwrap_err();
    assert!(
        matches!(&error, PinsError::Locked(LockError::Held { .. })),
        "{error}"
    );
    let advice = error.advice(&receiver());
    assert!(
        advice.contains("fuser") && advice.contains("--pins"),
        "{advice}"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let pins = Pins::new(Some(folder.path().to_owned()));
    runtime
        .block_on(pins.accept(&receiver(), &signed(1)))
        .unwrap();
}

#[test]
fn every_refusal_has_matching_advice() {
    let advice = |reason| {
        let pin = Some(PathBuf::from("pins/receiver_1_public.pin.json"));
        PinsError::Refused { reason, pin }.advice(&receiver())
    };
    let older = |pinned| PinError::Older { offered: 1, pinned };
    assert!(advice(older(1_757_314_980_000)).contains("register-key --above 1757314980000`"));
    // No epoch exceeds the highest one.
    assert!(!advice(older(u64::MAX)).contains("--above"));
    for reason in [older(7), PinError::NoLongerSigned, PinError::Changed] {
        assert!(advice(reason).contains("pins/receiver_1_public.pin.json"));
    }
    assert!(advice(PinError::OtherKeys(7)).contains("registers its key anew"));
}
