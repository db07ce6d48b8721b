//! `--suite FORM`: how to seal for a key that is not signed.

use std::ffi::OsStr;

use ciphermq_client::{Form, OlderForm, Suite};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};

/// Reads a form, and tells help texts and completions which there are.
#[derive(Clone)]
pub(super) struct FormParser;

/// The forms that may be asked for.
fn forms() -> impl Iterator<Item = Form> {
    let older = OlderForm::ALL.into_iter().map(Form::Older);
    older.chain([Form::Suite(Suite::X25519Aes256Gcm)])
}

/// Who reads it.
fn readers(form: Form) -> &'static str {
    match form {
        Form::Older(OlderForm::Zero) => "Clients of v1.3.1",
        Form::Older(OlderForm::A) => "Clients of v1.4.0",
        Form::Older(OlderForm::B) => "Clients of v1.4.1 and v1.4.2",
        Form::Older(OlderForm::C) => "Clients of v1.5.0 and after it",
        Form::Suite(_) => "Receivers of this version that could not sign their keys",
    }
}

/// Only X25519 keys are ever unsigned: X-Wing keys stand in signed keys alone.
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
    Err(format!("it is one of {}", names.join(", ")))
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
