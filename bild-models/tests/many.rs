//! Many sources at once need no more memory than few, and one bad source loses no other. Alone in its program, because it
//! counts what the program allocates.

mod common;

use std::num::NonZeroUsize;

use bild_core::{Generator, Settings, Source};
use bild_policies::Lossless;
use common::{Numbers, random_model};
use peak_alloc::PeakAlloc;
use serde_json::json;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn memory_does_not_grow_with_the_number_of_sources() {
    let pair = (random_model(json!({}), 1), random_model(json!({ "d_model": 24 }), 2));
    let settings = Settings::default().with_max_new_tokens(12);
    let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings);
    // However many cores there are.
    let generator = generator.with_at_once(NonZeroUsize::new(64).unwrap());
    // Source 400 holds a token that the model does not have.
    let source = |i: u64| if i == 400 { Source::new([99]) } else { Source::new(Numbers(i).tokens(8, 37)) };
    let run = |count: u64| {
        let (mut next, mut errors) = (0, Vec::new());
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        generator.generate_many((0..count).map(source), |i, result| {
            assert_eq!(i, next);
            next += 1;
            if let Err(error) = result {
                errors.push((i, error.to_string()));
            }
        });
        assert_eq!(next as u64, count);
        (MEMORY.peak_usage() - before, errors)
    };
    // More than are under way at once, and ahead of the results.
    run(900); // what is made once
    let (few, _) = run(900);
    let (many, errors) = run(2500);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].0 == 400 && errors[0].1.contains("token 99"), "{errors:?}");
    // 1,600 outputs alone would take some 800 KB.
    assert!(many < few + (256 << 10), "{few} bytes for 900 sources, {many} for 2,500");
}
