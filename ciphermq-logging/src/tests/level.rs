//! The level that is logged is changed while the logs run.

use super::*;

#[test]
fn another_level_is_in_force_at_once() {
    let logs = Logs::new(tracing::Level::INFO);
    logs.run_with_handle(|handle| {
        let message = || {
            let (exchange, key) = route();
            let ids = [&id("m-1")];
            handle
                .messages()
                .write(|lines| lines.published(&ids, &["q"], &exchange, &key));
        };
        all_levels();
        message();
        handle.set_level(tracing::Level::WARN);
        all_levels();
        message();
        handle.set_level(tracing::Level::DEBUG);
        all_levels();
        message();
    });
    let lines = ["error.log", "info.log", "debug.log"].map(|name| logs.lines(name).len());
    assert_eq!(lines, [6, 4, 1]);
}
