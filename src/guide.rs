//! The guide: what the words mean, how to choose, how to write a policy, how to embed.

/// Defines a page of the guide with the links between pages as rustdoc has them.
macro_rules! pages {
    ($($(#[$attribute:meta])* $name:ident: $file:literal;)*) => { $(
        #[doc = "[concepts]: crate::guide::concepts\n[choosing]: crate::guide::choosing\n[policies]: crate::guide::policies"]
        #[doc = "[embedding]: crate::guide::embedding\n[checkpoints]: crate::guide::checkpoints"]
        #[doc = "[backends]: crate::guide::backends\n[performance]: crate::guide::performance"]
        #[doc = "[results]: crate::guide::results\n[checked]: crate::guide::checked\n[json]: crate::guide::policy_json"]
        #[doc = "[generation settings]: crate::guide::checkpoints#generation-settings"]
        #[doc = "[int8]: crate::guide::backends#int8\n[`Threads`]: crate::Threads\n[loop]: crate::decode::Generation"]
        #[doc = "[int8 text]: crate::guide::performance#what-int8-does-to-the-text\n"]
        #[doc = include_str!(concat!("../docs/", $file))]
        $(#[$attribute])*
        pub mod $name {}
    )* };
}

pages! {
    concepts: "concepts.md";
    choosing: "choosing.md";
    policies: "policies.md";
    policy_json: "policy-json.md";
    embedding: "embedding.md";
    checkpoints: "checkpoints.md";
    backends: "backends.md";
    performance: "performance.md";
    results: "results.md";
    checked: "checked.md";
}
