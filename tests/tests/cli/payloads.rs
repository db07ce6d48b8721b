//! Payloads arrive unchanged: JSON byte for byte, other text as text, and other bytes in base64.

use ciphermq_tests::Fixture;

use ciphermq_tests::workspace::Workspace;

pub(crate) async fn every_payload_arrives_as_it_was(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let json = [
        r#"{"temperature_f": 47.8}"#,
        r#"{"big":123456789012345678901234567890.000100,"small":-1.10E-300,"zero":-0}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"escaped":"\u00e9\/\ud83d\ude00","raw":"é😀"}"#,
        r#"  [1 , 2]	"#,
        "null",
        "\"text\"",
        "1e999",
        &deep,
    ];
    let text = [
        "text",
        "{not json",
        "Température: 47,8 °F — 温度",
        "tab\tbell\u{7}nul\0",
        "NaN",
        "01",
    ];
    let bytes: [&[u8]; 3] = [b"\xff\xfe", b"{\"a\":\"\xff\"}", b"\xc3"];

    let mut file = Vec::new();
    let lines = json
        .iter()
        .chain(&text)
        .map(|line| line.as_bytes())
        .chain(bytes);
    for line in lines {
        file.extend_from_slice(line);
        file.push(b'\n');
    }
    workspace.write("payloads", file);
    workspace
        .send()
        .args(["--file", "payloads"])
        .run()
        .await
        .success();
    workspace
        .receive(json.len() + text.len() + bytes.len())
        .await;

    let received = workspace.received();
    let mut received = received.iter();
    for (line, json) in received.by_ref().take(json.len()).zip(json) {
        assert_eq!(
            line.json(),
            Some(json.trim()),
            "without the white space around it"
        );
    }
    for (line, text) in received.by_ref().take(text.len()).zip(text) {
        assert_eq!(line.text(), text);
    }
    for (line, bytes) in received.zip(bytes) {
        assert_eq!(line.json(), None);
        assert_eq!(line.bytes(), bytes);
    }
}
