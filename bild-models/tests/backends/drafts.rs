//! Drafts in one go: what is drafted on the device without a read between is what is drafted step by step.

use bild_core::{Pair, PairSession, Pass, Role, Row, Rows, SessionLimit, Source, Token, Want};
use bild_models::{Checkpoint, EarlyExit, LoadOptions, SharedEncoder, Shortlist, T5};
use burn::tensor::backend::Backend;
use serde_json::json;

use crate::common::{Numbers, config, write_checkpoint};

on_every_backend! {
    in_one_go_as_step_by_step;
    of_several_sessions_as_of_each;
}

const LIMIT: usize = 30;

fn model<B: Backend>(seed: u64, shortlist: bool) -> T5<B> {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({ "num_decoder_layers": 4 })), seed, |_| {});
    let list = Shortlist::new([2, 5, 7, 20, 21, 36]).with_beside(9, [11, 30]);
    let options = LoadOptions::default();
    let options = if shortlist { options.with_shortlist(list) } else { options };
    T5::load_with(&Checkpoint::open(directory.path()).unwrap(), &Default::default(), &options).unwrap()
}

fn asking<'a>(most: usize, keep: usize, new: &'a [Token]) -> Pass<'a> {
    let mut pass = Pass::draft(keep, new, Want::default().with_entropy());
    pass.most = most;
    pass
}

fn same(some: &Row, other: &Row) {
    assert_eq!(some.argmax, other.argmax);
    assert!((some.probability - other.probability).abs() < 1e-4, "{some:?} {other:?}");
    assert!((some.entropy.unwrap() - other.entropy.unwrap()).abs() < 1e-3, "{some:?} {other:?}");
}

/// What a session that is asked again and again says, beside one that drafts in one go, while drafts stand or fall.
fn follow<B: Backend>(pair: &impl Pair, seed: u64) {
    let mut numbers = Numbers(seed);
    let source = Source::new([4, 9, 1]);
    let begin = || pair.begin(&source, &SessionLimit::new(LIMIT)).unwrap();
    let (mut one, mut go) = (begin(), begin());
    let (mut tokens, mut seen, mut verified) = (vec![0], [0, 0], 0);
    while tokens.len() < LIMIT {
        let most = 1 + numbers.below(6);
        let rows = go.pass(&asking(most, seen[1], &tokens[seen[1]..])).unwrap();
        let room = LIMIT - tokens.len();
        let expected = if B::name(&Default::default()) == "flex" { 1 } else { most.min(room + 1) };
        assert_eq!(rows.len(), expected);
        let before = tokens.len();
        for (i, row) in rows.iter().enumerate() {
            same(row, &one.pass(&asking(1, seen[0], &tokens[seen[0]..])).unwrap()[0]);
            seen[0] = tokens.len();
            if i < room {
                tokens.push(row.argmax);
            }
        }
        let kept = before + numbers.below(tokens.len() - before + 1);
        tokens.truncate(kept);
        seen = [seen[0].min(kept), (before + rows.len() - 1).min(kept)];
        let verify = Pass::verify(verified, &tokens[verified..], Want::default().with_entropy());
        if !verify.new.is_empty() {
            let both = [one.pass(&verify).unwrap(), go.pass(&verify).unwrap()];
            both[0].iter().zip(&both[1]).for_each(|(some, other)| same(some, other));
        }
        verified = tokens.len();
        tokens.push(numbers.below(37) as Token);
    }
}

fn in_one_go_as_step_by_step<B: Backend>() {
    for seed in 0..2 {
        let (big, little) = (model::<B>(seed, false), model::<B>(seed + 10, seed % 2 == 1));
        follow::<B>(&(little.clone(), big.clone()), seed);
        follow::<B>(&EarlyExit::new(little.clone(), 2).unwrap(), seed);
        follow::<B>(&SharedEncoder::of_layers(little, &[0, 2]).unwrap(), seed);
    }
}

fn of_several_sessions_as_of_each<B: Backend>() {
    let model = model::<B>(3, true);
    let pair = EarlyExit::new(model.clone(), 2).unwrap();
    of_several(&(model.clone(), model));
    of_several(&pair);
}

fn of_several<P: Pair>(pair: &P) {
    let sources = [&[4, 9, 1][..], &[7, 1], &[30, 9, 9, 2, 1]].map(|tokens| Source::new(tokens.to_vec()));
    let passes = [asking(5, 0, &[0]), asking(2, 0, &[0, 8, 3]), asking(4, 0, &[0, 12])];
    let begin = |source: &Source| pair.begin(source, &SessionLimit::new(LIMIT)).unwrap();
    let mut together: Vec<_> = sources.iter().map(begin).collect();
    let mut given: Vec<_> = together.iter_mut().zip(passes).collect();
    let found = pair.pass_all(&mut given).into_iter().map(Result::unwrap).collect::<Vec<Rows>>();
    for ((source, pass), found) in sources.iter().zip(passes).zip(found) {
        assert_eq!(pass.role, Role::Draft);
        let alone = begin(source).pass(&pass).unwrap();
        assert_eq!(alone.len(), found.len());
        alone.iter().zip(&found).for_each(|(some, other)| same(some, other));
    }
}
