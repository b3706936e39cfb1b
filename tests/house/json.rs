//! The JSON of every policy, as `docs/policy-json.md` has it.

use bild::policies::AnyPolicy;
use serde_json::{Value, json};

use crate::is_recorded;

/// Every policy in its shortest form, and what it is.
const SHORTEST: [(&str, &str); 8] = [
    (r#"{"policy":"bild"}"#, "the paper's fallback and rollback"),
    (r#"{"policy":"lossless"}"#, "the big model's own text"),
    (r#"{"policy":"sampling"}"#, "the big model's own distribution"),
    (r#"{"policy":"cost_aware"}"#, "another policy, with drafts only as long as they pay"),
    (r#"{"policy":"adaptive_length"}"#, "another policy, with drafts as long as the last ones stood"),
    (r#"{"policy":"target_rollback","of":{},"rate":0.125}"#, "the paper's, with a rollback threshold that moves"),
    (r#"{"policy":"big"}"#, "the big model alone"),
    (r#"{"policy":"little"}"#, "the little model alone"),
];

/// Fields that are left out where they are written, too.
const ABSENT: [(&str, &str); 3] = [
    (
        r#"{"policy":"bild","first":"verifier"}"#,
        "the model that speaks first, if not the variant's: `draft` or `verifier`",
    ),
    (r#"{"policy":"sampling","deferral":0.25}"#, "not exact: drafts are judged as by a speculative cascade"),
    (
        r#"{"policy":"cost_aware","prices":{"draft":1.0,"verify":4.0,"verify_draft":0.5}}"#,
        "what passes cost, where it is not to be measured while decoding",
    ),
];

const FALLBACKS: [(&str, &str); 6] = [
    ("0.5", "below this probability of the draft model (the paper's)"),
    (r#"{"entropy":2.0}"#, "above this entropy, in nats"),
    (r#"{"margin":0.25}"#, "below this distance of the two most likely tokens"),
    (r#"{"accumulated":0.25}"#, "where the drafts so far have this probability together"),
    (r#"{"acceptance":0.5}"#, "where entropy bounds the acceptance of the draft below this"),
    (r#"{"random":0.25}"#, "at random, with this probability"),
];

const ROLLBACKS: [(&str, &str); 7] = [
    ("2.0", "above this cross-entropy under the big model (the paper's)"),
    (r#""inf""#, "never"),
    (r#"{"probability":0.125}"#, "below this probability under the big model"),
    (r#"{"rank":3}"#, "beyond this rank under the big model"),
    (r#"{"divergence":0.5}"#, "where the two distributions are this far apart"),
    (r#"{"typical":{"epsilon":0.25,"delta":0.5}}"#, "what is not typical of the big model"),
    (r#"{"deferral":0.5}"#, "what a speculative cascade defers for"),
];

fn policy(json: &str) -> AnyPolicy {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn read(json: &Value) -> Value {
    serde_json::to_value(policy(&json.to_string())).unwrap()
}

#[test]
fn the_json_of_every_policy_is_written_down() {
    let mut page = String::from(
        "# The JSON of a policy\n\n\
         What `--policy-file` reads, `tune` writes and `AnyPolicy` is. Fields that are left out have the values shown.\n\n\
         | | shortest | with every field |\n|---|---|---|\n",
    );
    for (shortest, what) in SHORTEST {
        let whole = serde_json::to_string(&policy(shortest)).unwrap();
        page += &format!("| {what} | `{shortest}` | `{whole}` |\n");
    }
    page += "\nFields that are absent unless they are given:\n\n| | |\n|---|---|\n";
    for (given, what) in ABSENT {
        let fields: Value = serde_json::from_str(given).unwrap();
        let whole = read(&fields);
        assert!(fields.as_object().unwrap().iter().all(|(field, value)| whole[field] == *value), "{given} {whole}");
        page += &format!("| `{given}` | {what} |\n");
    }
    page += "\n`fallback`, when to hand over to the big model:\n\n| | |\n|---|---|\n";
    for (rule, what) in FALLBACKS {
        let rule: Value = serde_json::from_str(rule).unwrap();
        let whole = read(&json!({ "policy": "bild", "fallback": rule, "rollback": 2.0 }));
        page += &format!("| `{}` | {what} |\n", whole["fallback"]);
    }
    page += "\n`rollback`, which drafts are refused:\n\n| | |\n|---|---|\n";
    for (rule, what) in ROLLBACKS {
        let rule: Value = serde_json::from_str(rule).unwrap();
        let whole = read(&json!({ "policy": "bild", "fallback": 0.5, "rollback": rule }));
        page += &format!("| `{}` | {what} |\n", whole["rollback"]);
    }
    is_recorded("docs/policy-json.md", &page);
}
