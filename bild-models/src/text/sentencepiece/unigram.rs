//! The most likely segmentation of a text into pieces (Kudo, "Subword Regularization", 2018), by Viterbi's algorithm.

use bild_core::Token;

use super::{
    longest::narrowed,
    proto::{Kind, Piece},
};
use crate::text::vetted::LONGEST_STRING;

/// How much less likely than the least likely piece an unknown character is, as sentencepiece has it.
const UNKNOWN_PENALTY: f32 = 10.0;

#[derive(Debug)]
pub(super) struct Unigram {
    /// The pieces that a text may be made of, in the order of their bytes.
    sorted: Vec<Entry>,
    unknown_score: f32,
    /// The best score of a trained piece, but at least the least positive number, where sentencepiece begins to look: a
    /// piece of the user's scores this for each of its bytes, less 0.1.
    user_score: f32,
}

#[derive(Debug)]
struct Entry {
    piece: Box<[u8]>,
    token: Token,
    score: Score,
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

#[derive(Clone, Copy, Debug)]
enum Score {
    Trained(f32),
    User,
    /// Matched, and never chosen.
    Unused,
}

impl Unigram {
    pub(super) fn new(pieces: &[Piece]) -> Result<Self, String> {
        let (mut least, mut most) = (f32::MAX, f32::MIN_POSITIVE);
        let mut sorted = Vec::new();
        for (token, piece) in pieces.iter().enumerate() {
            let score = match piece.kind() {
                Kind::Normal => {
                    if !piece.score().is_finite() {
                        // At each place of a text so many bytes are looked at.
                        return Err(format!("its piece {token} has the score {}", piece.score()));
                    }
                    (least, most) = (least.min(piece.score()), most.max(piece.score()));
                    Score::Trained(piece.score())
                }
                Kind::UserDefined => Score::User,
                Kind::Unused => Score::Unused,
                Kind::Unknown | Kind::Control | Kind::Byte => continue,
            };
            match piece.piece().len() {
                0 => return Err(format!("its piece {token} is empty")),
                length if length > LONGEST_STRING => {
                    return Err(format!("its piece {token} has {length} bytes, expected at most {LONGEST_STRING}"));
                }
                _ => {}
            }
            sorted.push(Entry { piece: piece.piece().as_bytes().into(), token: token as Token, score });
        }
        sorted.sort_unstable_by(|a, b| a.piece.cmp(&b.piece));
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0].piece == pair[1].piece) {
            return Err(format!("its piece {} is there twice", String::from_utf8_lossy(&twice[0].piece)));
        }
        Ok(Self { sorted, unknown_score: least - UNKNOWN_PENALTY, user_score: most })
    }

    /// The pieces of a text with their tokens. A character that no piece covers is a piece of its own, `unknown`.
    ///
    /// Sums are f32 where sentencepiece's are, and of equal ones the first stands, so that the same segmentation is found
    /// where rounding decides, as it does in a text of thousands of characters.
    pub(super) fn segments<'t>(&self, text: &'t str, unknown: Token) -> Vec<(&'t str, Token)> {
        #[derive(Clone, Copy)]
        struct Best {
            score: f32,
            /// Where the last piece of the best way to here begins, and its token.
            last: Option<(usize, Token)>,
        }
        let bytes = text.as_bytes();
        let mut best = vec![Best { score: 0.0, last: None }; bytes.len() + 1];
        for (begin, character) in text.char_indices() {
            let here = best[begin].score;
            let width = character.len_utf8();
            let mut covered = false;
            let mut candidates: &[Entry] = &self.sorted;
            for end in begin + 1..=bytes.len() {
                candidates = narrowed(candidates, end - begin - 1, bytes[end - 1]);
                let Some(entry) = candidates.first() else { break };
                if entry.piece.len() > end - begin {
                    continue;
                }
                let score = match entry.score {
                    Score::Trained(score) => f64::from(score),
                    Score::User => f64::from((end - begin) as f32 * self.user_score) - 0.1,
                    Score::Unused => continue,
                };
                let (target, score) = (&mut best[end], score + f64::from(here));
                if target.last.is_none() || score > f64::from(target.score) {
                    *target = Best { score: score as f32, last: Some((begin, entry.token)) };
                }
                covered |= end - begin == width;
            }
            if !covered {
                let (target, score) = (&mut best[begin + width], self.unknown_score + here);
                if target.last.is_none() || score > target.score {
                    *target = Best { score, last: Some((begin, unknown)) };
                }
            }
        }
        let mut segments = Vec::new();
        let mut end = bytes.len();
        while let Some((begin, token)) = best[end].last {
            segments.push((&text[begin..end], token));
            end = begin;
        }
        segments.reverse();
        segments
    }
}
