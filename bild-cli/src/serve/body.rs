//! What a request asks for.

use std::{sync::Arc, time::Duration};

use bild::{TextRequest, policies::AnyPolicy};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{NAMES, Service, failure::Failure};
use crate::{Error, pair::Loaded, policy::Needs, policy::needs};

/// The most bytes of a policy, of a prefix and of a string that ends a text, and the most of these.
const MOST_POLICY: usize = 4096;
const MOST_PREFIX: usize = 1024;
const MOST_STOP: usize = 256;
const MOST_STOPS: usize = 16;

/// As JSON; what is left out is as the service has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) text: String,
    /// By its name or as JSON has it.
    policy: Option<Box<RawValue>>,
    max_new_tokens: Option<usize>,
    /// In seconds.
    time_limit: Option<f64>,
    pub(super) seed: Option<u64>,
    prefix: Option<String>,
    /// Strings before which the text ends.
    #[serde(default)]
    stop: Vec<String>,
    /// Whether pieces are sent as they come.
    #[serde(default)]
    pub(super) stream: bool,
    /// Whether what happened is sent, too.
    #[serde(default)]
    pub(super) events: bool,
}

impl Body {
    pub(super) fn parse(json: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(json).map_err(|error| Failure::bad(bild::decode::plain_words(&error)))
    }

    /// What is said for all sources must be short: it is gone through for each of them, or at each of their tokens.
    fn check(&self) -> Result<(), Failure> {
        let longest = |name, length, most| match length > most {
            true => Err(Failure::bad(format_args!("`{name}` has {length} bytes, expected at most {most}"))),
            false => Ok(()),
        };
        longest("policy", self.policy.as_ref().map_or(0, |policy| policy.get().len()), MOST_POLICY)?;
        longest("prefix", self.prefix.as_ref().map_or(0, String::len), MOST_PREFIX)?;
        longest("stop", self.stop.iter().map(String::len).max().unwrap_or(0), MOST_STOP)?;
        match self.stop.len() {
            ..=MOST_STOPS => Ok(()),
            count => Err(Failure::bad(format_args!("`stop` has {count} strings, expected at most {MOST_STOPS}"))),
        }
    }

    /// The request for each of its sources, but for their texts and seeds.
    pub(super) fn request(&self, service: &Service) -> Result<TextRequest<'static>, Failure> {
        self.check()?;
        let mut settings = service.settings.clone().with_trace(self.events);
        if let Some(tokens) = self.max_new_tokens {
            let most = service.most_new_tokens;
            if tokens > most {
                return Err(Failure::bad(format_args!("`max_new_tokens` is {tokens}, expected at most {most}")));
            }
            settings = settings.with_max_new_tokens(tokens);
        }
        if let Some(seconds) = self.time_limit {
            let time = Duration::try_from_secs_f64(seconds)
                .map_err(|_| Failure::bad(format_args!("`time_limit` is {seconds}, expected a number of seconds")))?;
            settings.deadline = settings.deadline.map(|limit| limit.min(time));
        }
        let mut request = TextRequest::new("");
        if let Some(json) = self.policy.as_deref().map(RawValue::get) {
            request = match serde_json::from_str::<String>(json) {
                Ok(name) => request.with_policy(named(service, &name)?),
                Err(_) => request.with_policy(policy(&service.loaded, json).map_err(Failure::bad)?),
            };
        }
        if let Some(prefix) = &self.prefix {
            request = request.with_prefix(&**prefix);
        }
        if !self.stop.is_empty() {
            request = request.with_stop_strings(self.stop.iter().cloned());
        }
        Ok(request.with_settings(settings))
    }
}

/// The policy that requests call so.
fn named(service: &Service, name: &str) -> Result<Arc<AnyPolicy>, Failure> {
    match service.policies.get(name) {
        Some(policy) => Ok(Arc::clone(policy)),
        None if NAMES.contains(&name) => {
            Err(Failure::bad(format_args!("the policy {name} cannot be had of the models loaded here")))
        }
        None => {
            let names = NAMES.join(", ");
            Err(Failure::bad(format_args!("there is no policy {name}: {names} are, or JSON as --policy-file has it")))
        }
    }
}

/// The policy of a request, for the models that are there.
pub(super) fn policy(loaded: &Loaded, json: &str) -> Result<AnyPolicy, Error> {
    let policy: AnyPolicy = serde_json::from_str(json)?;
    match needs(&policy) {
        Needs::Both if !loaded.drafts() => Err("this policy needs two models, and one is loaded here".into()),
        Needs::Little if !loaded.drafts() => Err("this policy needs a little model, and none is loaded here".into()),
        _ => loaded.decoded_by(&policy),
    }
}
