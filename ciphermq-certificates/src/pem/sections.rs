//! The sections of a PEM text.

use zeroize::Zeroizing;

use super::Secret;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// The longest text that counts as a label; real labels are shorter.
const MAX_LABEL_BYTES: usize = 64;

/// A section from `BEGIN` to `END`.
pub(super) struct Section {
    /// The label. The older `X509 CERTIFICATE` becomes `CERTIFICATE`.
    pub(super) label: String,
    /// The lines from `BEGIN` to `END`, trimmed, each with a `\n`.
    pub(super) text: Secret,
    /// Whether the header states encryption (RFC 1421, section 4.6.1.1).
    pub(super) is_encrypted: bool,
}

/// Splits a text into its sections.
///
/// A section without an end is included, so that parsing it reports the damage.
pub(super) fn sections(text: &[u8]) -> Vec<Section> {
    let text = utf8(text);
    let mut sections: Vec<Section> = Vec::new();
    let mut is_inside = false;
    for line in text.split(|&byte| byte == b'\n' || byte == b'\r') {
        let line = line
            .strip_prefix(BYTE_ORDER_MARK)
            .unwrap_or(line)
            .trim_ascii();
        if let Some(label) = label(line, BEGIN) {
            // Enough capacity for the rest: a buffer that grows leaves copies in memory.
            let mut text = Zeroizing::new(Vec::with_capacity(text.len() + 1));
            put_line(&mut text, BEGIN, &label);
            sections.push(Section {
                label,
                text,
                is_encrypted: false,
            });
            is_inside = true;
        } else if let Some(section) = sections.last_mut().filter(|_| is_inside) {
            if let Some(label) = label(line, END) {
                put_line(&mut section.text, END, &label);
                is_inside = false;
            } else if line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED") {
                section.is_encrypted = true;
            } else {
                section.text.extend_from_slice(line);
                section.text.push(b'\n');
            }
        }
    }
    sections
}

fn put_line(text: &mut Vec<u8>, mark: &[u8], label: &str) {
    for part in [mark, label.as_bytes(), DASHES, b"\n"] {
        text.extend_from_slice(part);
    }
}

/// Returns whether a line holds more than its `BEGIN`, as when line breaks are lost.
pub(super) fn are_lines_joined(text: &[u8]) -> bool {
    utf8(text)
        .split(|&byte| byte == b'\n' || byte == b'\r')
        .any(|line| {
            let mut parts = line.windows(BEGIN.len());
            parts.any(|part| part == BEGIN) && label(line.trim_ascii(), BEGIN).is_none()
        })
}

/// Returns the label of a `BEGIN` or `END` line.
///
/// Errors show the label, so it must not be secret. If line breaks are lost, the text between the
/// dashes may be a private key, which is not a label.
fn label(line: &[u8], mark: &[u8]) -> Option<String> {
    let label = line.strip_prefix(mark)?.strip_suffix(DASHES)?;
    let is_label = label.len() <= MAX_LABEL_BYTES
        && label
            .iter()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'#'));
    if !is_label {
        return None;
    }
    Some(match label {
        b"X509 CERTIFICATE" => "CERTIFICATE".to_owned(),
        label => String::from_utf8_lossy(label).into_owned(),
    })
}

/// Converts UTF-16 with a byte order mark to UTF-8, and copies any other text.
fn utf8(text: &[u8]) -> Secret {
    let unit: fn([u8; 2]) -> u16 = match text {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return Zeroizing::new(text.to_vec()),
    };
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 2));
    let (units, _) = text.as_chunks::<2>();
    for letter in char::decode_utf16(units.iter().map(|&bytes| unit(bytes))) {
        let letter = letter.unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out
}
