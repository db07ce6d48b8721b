use std::sync::OnceLock;

use ciphermq_crypto::Authority;

use crate::pki::List;

/// An authority, and a list in DER that it has signed.
struct Signed {
    authority: Authority,
    list: Vec<u8>,
}

impl Signed {
    fn new() -> Self {
        let issuer = crate::Authority::new("CA");
        let client = issuer.client("client").certificate_der();
        let list = issuer.list_der(&List {
            revoked: &[&client],
            ..List::default()
        });
        let authority = Authority::new([issuer.certificate_der()]).expect("a CA certificate");
        Self { authority, list }
    }
}

/// Checks that only the authority's own list is read. The input is taken as a list, and as changes
/// of a valid one: of each three bytes, two are a position and the third is added there.
pub fn revocation_list(data: &[u8]) {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    let signed = SIGNED.get_or_init(Signed::new);
    let read = |list: &[u8]| signed.authority.read_list(list);
    assert_eq!(read(data).is_ok(), data == signed.list, "{:?}", read(data));
    let mut changed = signed.list.clone();
    for change in data.chunks_exact(3) {
        let position = usize::from(u16::from_be_bytes([change[0], change[1]])) % changed.len();
        changed[position] = changed[position].wrapping_add(change[2]);
    }
    let read = read(&changed);
    assert_eq!(read.is_ok(), changed == signed.list, "{read:?}");
}
