//! The backend that fails on request.

use bytes::Bytes;
use registry_core::{Error, ErrorCode};
use registry_storage::backend::{Condition, Durability, RecordTransaction, Transaction, Version};
use registry_storage::testing::Faulty;
use registry_storage::testing::faulty::Fault;
use registry_storage::{Backend as _, Key, ObjectStoreBackend};

struct Two;

impl Transaction for Two {
    type Output = (Option<Version>, Option<Version>);

    async fn run(self, records: &mut dyn RecordTransaction) -> Result<Self::Output, Error> {
        let first = records
            .put(&key(1), Bytes::from("first"), Condition::Absent)
            .await?;
        let second = records
            .put(&key(2), Bytes::from("second"), Condition::Absent)
            .await?;
        Ok((first, second))
    }
}

fn key(number: u32) -> Key {
    Key::from_stored(&format!("uploads/{number}"))
}

fn backend() -> Faulty<ObjectStoreBackend> {
    Faulty::new(ObjectStoreBackend::memory())
}

/// Returns whether the transaction was reported to have run, and how many of its two records there are.
async fn run(backend: &Faulty<ObjectStoreBackend>) -> (bool, usize) {
    let result = backend.transact(Durability::Synced, Two).await;
    if let Err(error) = &result {
        assert_eq!(error.code(), ErrorCode::Unavailable);
    }
    let records = backend.inner().list(&Key::from_stored(""), None, 10).await;
    (result.is_ok(), records.unwrap().len())
}

#[tokio::test]
async fn counts_the_transaction_and_its_steps() {
    let backend = backend();
    assert_eq!(run(&backend).await, (true, 2));
    assert_eq!(backend.calls(), 3);
    backend.get(&key(1)).await.unwrap();
    assert_eq!(backend.calls(), 4);
}

#[tokio::test]
async fn a_failed_call_has_no_effect_and_one_whose_answer_is_lost_has_one() {
    for (call, fault, records) in [
        (0, Fault::Fail, 0),
        (0, Fault::LoseAnswer, 2),
        (1, Fault::Fail, 0),
        (1, Fault::LoseAnswer, 1),
        (2, Fault::Fail, 1),
        (2, Fault::LoseAnswer, 2),
    ] {
        let backend = backend();
        backend.fault_at(call, fault);
        assert_eq!(run(&backend).await, (false, records), "{fault:?} at {call}");
    }
}

#[tokio::test]
async fn a_delayed_call_lets_another_task_run_first() {
    let backend = backend();
    backend.fault_at(2, Fault::Delay(3));
    let (delayed, other) = tokio::join!(backend.transact(Durability::Synced, Two), async {
        struct Other;

        impl Transaction for Other {
            type Output = Option<Version>;

            async fn run(self, records: &mut dyn RecordTransaction) -> Result<Option<Version>, Error> {
                records
                    .put(&key(2), Bytes::from("other"), Condition::Absent)
                    .await
            }
        }
        backend.inner().transact(Durability::Synced, Other).await
    });
    assert!(other.unwrap().is_some());
    let (first, second) = delayed.unwrap();
    assert!(first.is_some() && second.is_none());
}

#[tokio::test]
async fn random_faults_are_those_of_the_seed_until_it_is_healed() {
    let mut outcomes = Vec::new();
    for seed in [1, 1, 2] {
        let backend = backend();
        backend.fault_randomly(seed, 300);
        let mut outcome = Vec::new();
        for number in 0..100 {
            outcome.push(backend.get(&key(number)).await.is_ok());
        }
        let failed = outcome.iter().filter(|is_ok| !**is_ok).count();
        assert!((5..50).contains(&failed), "{failed} of 100");
        backend.heal();
        for number in 0..100 {
            backend.get(&key(number)).await.unwrap();
        }
        outcomes.push(outcome);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0], outcomes[2]);
}
