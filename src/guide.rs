//! The guide: what the words mean, how to choose, how to write a policy, how to embed.

/// Defines a page of the guide with the links between pages as rustdoc has them.
macro_rules! pages {
    ($($(#[$attribute:meta])* $name:ident: $page:expr;)*) => { $(
        #[doc = "[concepts]: crate::guide::concepts\n[choosing]: crate::guide::choosing\n[policies]: crate::guide::policies\n[align]: crate::guide::align"]
        #[doc = "[embedding]: crate::guide::embedding\n[checkpoints]: crate::guide::checkpoints\n[serving]: crate::guide::serving"]
        #[doc = "[backends]: crate::guide::backends\n[performance]: crate::guide::performance"]
        #[doc = "[results]: crate::guide::results\n[checked]: crate::guide::checked\n[json]: crate::guide::policy_json"]
        #[doc = "[generation settings]: crate::guide::checkpoints#generation-settings"]
        #[doc = "[draft decoder]: crate::guide::checkpoints#a-draft-decoder"]
        #[doc = "[fewer tokens]: crate::guide::choosing#drafts-that-score-fewer-tokens"]
        #[doc = "[int8]: crate::guide::backends#int8\n[`Threads`]: crate::Threads\n[loop]: crate::decode::Generation"]
        #[doc = "[int8 text]: crate::guide::performance#what-int8-does-to-the-text\n"]
        #[doc = include_str!("../docs/pictures.txt")]
        #[doc = $page]
        $(#[$attribute])*
        pub mod $name {}
    )* };
}

pages! {
    concepts: include_str!("../docs/concepts.md");
    choosing: include_str!("../docs/choosing.md");
    align: include_str!("../docs/align.md");
    policies: include_str!("../docs/policies.md");
    policy_json: include_str!("../docs/policy-json.md");
    embedding: include_str!("../docs/embedding.md");
    serving: include_str!("../docs/serving.md");
    corpora: include_str!("../docs/corpora.md");
    checkpoints: include_str!("../docs/checkpoints.md");
    backends: include_str!("../docs/backends.md");
    performance: include_str!("../docs/performance.md");
    results: include_str!("../docs/results.md");
    checked: include_str!("../docs/checked.md");
}
