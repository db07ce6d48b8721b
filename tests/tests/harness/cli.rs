//! A program's ending and output are captured.

use std::time::Duration;

use ciphermq_tests::{Cli, PATIENCE};

fn shell(script: &str) -> Cli {
    Cli::program("sh").arg("-c").arg(script)
}

#[tokio::test]
async fn code_and_both_outputs_are_captured() {
    let outcome = shell("cat; echo trouble >&2; echo $NAME; exit 4")
        .input("in\n")
        .env("NAME", "value")
        .run()
        .await;
    assert_eq!(outcome.code, Some(4));
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("in\nvalue\n", "trouble\n")
    );
}

#[tokio::test]
#[should_panic(expected = "trouble")]
async fn a_failure_shows_what_the_program_wrote() {
    shell("echo trouble >&2; exit 1").run().await.success();
}

#[tokio::test]
#[should_panic(expected = "still runs after")]
async fn a_program_that_hangs_fails_the_test() {
    shell("exec sleep 60")
        .limit(Duration::from_millis(50))
        .run()
        .await;
}

#[tokio::test]
async fn input_larger_than_a_pipe_goes_through() {
    let input = "x".repeat(1 << 20);
    assert_eq!(
        shell("cat")
            .input(input.clone())
            .run()
            .await
            .success()
            .stdout,
        input
    );
}

#[tokio::test]
async fn a_program_in_the_background_can_be_watched_and_killed() {
    let mut process = shell("echo started; exec sleep 60").spawn();
    process.stdout.expect("started").await;
    assert!(process.try_ended().is_none());
    assert_eq!(process.kill().await.code(), None);
    assert!(
        process.ended(PATIENCE).await.code().is_none(),
        "its end can be asked for again"
    );
}
