//! `--suite FORM`: the form to seal in for a key that is not signed.

use std::ffi::OsStr;

use ciphermq_client::{Form, OlderForm, Suite};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};

/// Parses a form, and lists the possible ones for help texts and completions.
#[derive(Clone)]
pub(super) struct FormParser;

/// The forms that `--suite` accepts.
fn forms() -> impl Iterator<Item = Form> {
    let older = OlderForm::ALL.into_iter().map(Form::Older);
    older.chain([Form::Suite(Suite::X25519Aes256Gcm)])
}

/// The receivers that can open a form, for its help text.
fn readers(form: Form) -> &'static str {
    match form {
        Form::Older(OlderForm::Zero) => "Clients of v1.3.1",
        Form::Older(OlderForm::A) => "Clients of v1.4.0",
        Form::Older(OlderForm::B) => "Clients of v1.4.1 and v1.4.2",
        Form::Older(OlderForm::C) => "Clients of v1.5.0 and after it",
        Form::Suite(_) => "Receivers of this version that could not sign their keys",
    }
}

/// Parses a form. X-Wing is not among them: only X25519 keys can be unsigned.
fn parse(text: &str) -> Result<Form, String> {
    if let Some(form) = forms().find(|form| form.as_str() == text) {
        return Ok(form);
    }
    if text == Suite::XWingAes256Gcm.as_str() {
        return Err(
            "keys for this suite are always signed: leave --allow-unsigned-keys out".to_owned(),
        );
    }
    let names: Vec<&str> = forms().map(|form| form.as_str()).collect();
    Err(format!("expected one of {}", names.join(", ")))
}

impl TypedValueParser for FormParser {
    type Value = Form;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Form, clap::Error> {
        parse.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let value = |form: Form| PossibleValue::new(form.as_str()).help(readers(form));
        Some(Box::new(forms().map(value)))
    }
}
