//! The rules of authorization, and the roles of older servers.

use super::*;

#[test]
fn roles_of_older_servers_are_rules() {
    use crate::authorization::{Action, Effect, Request};

    let config = parse(
        r#"
        [acl]
        sender_cns = ["sender_1", "a b", ""]
        receiver_cns = ["receiver_*"]
        admin_cns = ["admin"]
        whatever = [1, 2.5]
        "#,
    )
    .unwrap();
    let policy = &config.authorization;
    assert_eq!(policy.default, Effect::Deny);
    let client = |id| ciphermq_protocol::ClientId::new(id).unwrap();
    let may = |id, action| {
        let decision = policy.for_client(&client(id)).decide(&Request::new(action));
        decision.is_allowed()
    };
    for (id, publish, consume, administer) in [
        ("sender_1", true, false, false),
        ("receiver_*", false, true, false),
        ("receiver_1", false, false, false),
        ("admin", true, true, true),
        ("other", false, false, false),
    ] {
        assert_eq!(may(id, Action::Publish), publish, "{id}");
        assert_eq!(may(id, Action::Consume), consume, "{id}");
        assert_eq!(policy.is_administrator(&client(id)), administer, "{id}");
    }
    for (warning, part) in config.warnings.iter().zip([
        "[acl] is in force",
        "[acl] whatever has no effect",
        "`a b` is no client id",
    ]) {
        assert!(warning.starts_with("config.toml, line 2: "), "{warning}");
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(config.warnings.len(), 3);
    let text = "[acl]\nsender_cns = \"sender_1\"";
    refused(text, &[], &["line 2", "[acl] sender_cns", "Write a list"]);
    let text = "[acl]\nsender_cns = [\"a\"]\n[authorization]\ndefault = \"deny\"";
    refused(
        text,
        &[],
        &["line 4", "[authorization]", "[acl] is set as well"],
    );
}

#[test]
fn the_rules_of_authorization_are_read() {
    let config = parse_with(
        r#"
        [authorization]
        default = " Deny"
        administrators = ["ops-*"]
        [[authorization.rules]]
        name = "sensors report to the archive"
        clients = ["sensor-*"]
        allow = ["publish"]
        exchanges = ["readings"]
        routing_keys = ["archive_key"]
        receivers = ["archive", "${client_id}-mirror"]
        [[authorization.rules]]
        name = "nobody deletes"
        deny = ["delete"]
        "#,
        &[("CIPHERMQ_AUTHORIZATION_ADMINISTRATORS", "root, it-*")],
    )
    .unwrap();
    let policy = &config.authorization;
    assert_eq!(policy.default, crate::authorization::Effect::Deny);
    let names: Vec<_> = policy.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["sensors report to the archive", "nobody deletes"]);
    for (id, expected) in [("root", true), ("it-1", true), ("ops-1", false)] {
        let client_id = ciphermq_protocol::ClientId::new(id).unwrap();
        assert_eq!(policy.is_administrator(&client_id), expected, "{id}");
    }
}

#[test]
fn rules_that_are_none_are_refused() {
    let rule = "[[authorization.rules]]\nname = \"r\"\n";
    for (text, parts) in [
        (
            "[authorization]\ndefault = \"maybe\"".to_owned(),
            ["line 2", "`maybe`", "allow or deny"],
        ),
        (
            "[authorization]\nadministrators = [\"${client_id}\"]".to_owned(),
            ["line 2", "every client", "Write the ids"],
        ),
        (
            "[authorization]\nadministrators = \"ops\"".to_owned(),
            ["line 2", "administrators", "Write a list"],
        ),
        (
            "[authorization]\nroles = 1".to_owned(),
            ["line 2", "`roles`", "`administrators`"],
        ),
        (
            "[[authorization.rules]]\nallow = [\"bind\"]".to_owned(),
            ["line 1", "no name", "Write name"],
        ),
        (
            rule.to_owned(),
            ["line 1", "neither allows nor denies", "register_key"],
        ),
        (
            format!("{rule}allow = [\"fly\"]"),
            ["line 3", "`fly`", "register_key"],
        ),
        (
            format!("{rule}allow = []"),
            ["line 3", "allow is empty", "Leave it out"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\ndeny = [\"bind\"]"),
            ["line 4", "allows and denies `bind`", "Keep one"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nqueues = []"),
            ["line 4", "queues is empty", "Leave it out"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nqueues = [\"a[0]\"]"),
            ["line 4", "'['", "? for one"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nclients = [\"a-${{client_id}}\"]"),
            ["line 4", "every client", "Write the ids"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nqueues = [\"${{client}}\"]"),
            ["line 4", "`${client}`", "${client_id}"],
        ),
        (
            format!("{rule}allow = [\"consume\"]\nexchanges = [\"e\"]"),
            [
                "line 4",
                "exchanges has no meaning",
                "publish, declare, bind, delete",
            ],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nkeys = [\"e\"]"),
            ["line 4", "`keys` is unknown", "`routing_keys`"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\n{rule}deny = [\"bind\"]"),
            ["line 5", "another rule", "a name of its own"],
        ),
    ] {
        refused(&text, &[], &parts);
    }
}
