//! What the big model writes for sources, kept in a file that grows: what a little model is aligned on.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bild::{
    CancelToken, Output,
    decode::{Finish, Generation, Generator, Order, Pair, PairSession, Pass, Row, SessionLimit, Source, Token, Want},
};
use bild_eval::{Conditions, Observer};
use serde::{Deserialize, Serialize};

use crate::{
    data::{Example, Examples},
    error::{Result, TrainError},
    loss::Teacher,
};

/// What the file looks like, counted up when that changes.
const FORMAT: u32 = 1;
/// So often what is written is made to reach the disk.
const SYNC: Duration = Duration::from_secs(30);

/// The first line of the file; the records follow it.
#[derive(Serialize, Deserialize)]
struct Header {
    outputs_format: u32,
    best: usize,
    conditions: Conditions,
}

/// Where an example lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    source: u32,
    target: u32,
    /// The number of the source.
    number: usize,
}

impl Place {
    /// How many bytes the numbers take: both sequences, and the best tokens with their probabilities.
    fn bytes(self, best: usize) -> u64 {
        4 * (u64::from(self.source) + u64::from(self.target) * (1 + 2 * best as u64))
    }
}

/// The record that begins at `at`, and its length in bytes, if it ends before `length`.
fn record(reader: &mut BufReader<&File>, at: u64, best: usize, length: u64) -> std::io::Result<Option<(Place, u64)>> {
    if at + 8 > length {
        return Ok(None);
    }
    let mut counts = [0; 8];
    reader.read_exact(&mut counts)?;
    let [source, target] = [0, 4].map(|i| u32::from_le_bytes(counts[i..i + 4].try_into().expect("four bytes")));
    let place = Place { at: at + 8, source, target, number: 0 };
    let bytes = place.bytes(best);
    if place.at + bytes > length {
        return Ok(None);
    }
    reader.seek_relative(bytes as i64)?;
    Ok(Some((place, 8 + bytes)))
}

/// A file of sources and of what the big model wrote for each, with its `best` most likely tokens at every position. Examples are
/// read from the file as they are needed, so there may be more of them than memory holds.
#[derive(Debug)]
pub struct Outputs {
    path: PathBuf,
    file: Mutex<File>,
    best: usize,
    end: u64,
    /// How many sources are done.
    done: usize,
    /// Those for which something was written.
    places: Vec<Place>,
    synced: Instant,
}

impl Outputs {
    /// Goes on with the file that is there, if it was begun under the same conditions, or begins one. A record that was cut off is
    /// taken away. Where no tokens are wanted beside the outputs (`best` is 0), a file that has some serves too.
    ///
    /// # Errors
    ///
    /// If the file cannot be used, is no such file, or was begun under other conditions.
    pub fn open(path: impl AsRef<Path>, best: usize, conditions: &Conditions) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| unusable(path, &error);
        let header = Header { outputs_format: FORMAT, best, conditions: conditions.clone() };
        let line = serde_json::to_string(&header).map_err(|error| failed(error.into()))? + "\n";
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::new(&file);
        let mut first = Vec::new();
        reader.by_ref().take(1 << 20).read_until(b'\n', &mut first).map_err(failed)?;
        let (mut best, mut end, mut done, mut places) = (best, first.len() as u64, 0, Vec::new());
        let is_new = length <= line.len() as u64 && line.as_bytes().starts_with(&first);
        if !is_new {
            best = Self::check(&first, &header).map_err(|why| refused(path, &why))?;
            while let Some((place, bytes)) = record(&mut reader, end, best, length).map_err(failed)? {
                places.extend((place.target > 0).then_some(Place { number: done, ..place }));
                (end, done) = (end + bytes, done + 1);
            }
            file.set_len(end).map_err(failed)?;
        }
        drop(reader);
        let (path, file) = (path.into(), Mutex::new(file));
        let mut outputs = Self { path, file, best, end, done, places, synced: Instant::now() };
        if is_new {
            // Or cut off within its first line.
            outputs.end = line.len() as u64;
            outputs.write_at(0, line.as_bytes())?;
        }
        Ok(outputs)
    }

    /// How many tokens the file has for each position.
    fn check(first: &[u8], header: &Header) -> Result<usize, String> {
        let found: Header = serde_json::from_slice(first).map_err(|_| "it is no file of outputs")?;
        if found.outputs_format != FORMAT {
            return Err("another version of this program wrote it".into());
        }
        if header.best > 0 && found.best != header.best {
            return Err(format!("it holds {} tokens for each position, expected {}", found.best, header.best));
        }
        match header.conditions.difference(&found.conditions) {
            Some(difference) => Err(format!("it was begun under other conditions: {difference}")),
            None => Ok(found.best),
        }
    }

    /// How many sources are done, also those for which nothing was written.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The number of the source that an example is of.
    pub fn source(&self, index: usize) -> usize {
        self.places[index].number
    }

    /// Adds the output of the next source; an empty one if there is none.
    fn add(&mut self, source: &[Token], target: &[Token], teacher: &Teacher) -> Result<()> {
        let (source_length, target_length) = (source.len() as u32, target.len() as u32);
        let place = Place { at: self.end + 8, source: source_length, target: target_length, number: self.done };
        let mut bytes: Vec<u8> = [place.source, place.target].iter().flat_map(|count| count.to_le_bytes()).collect();
        bytes.extend([source, target, &teacher.tokens].into_iter().flatten().flat_map(|token| token.to_le_bytes()));
        bytes.extend(teacher.log_probs.iter().flat_map(|log_prob| log_prob.to_le_bytes()));
        self.write_at(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        self.done += 1;
        self.places.extend((place.target > 0).then_some(place));
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let written = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes));
        let written = written.and_then(|()| {
            if self.synced.elapsed() < SYNC {
                return Ok(());
            }
            self.synced = Instant::now();
            file.sync_data()
        });
        written.map_err(|error| unusable(&self.path, &error))
    }

    /// Lets the big model of a pair write for the sources that are not done, several at once, and keeps each output as it is
    /// done; a source that the settings cut is kept as it was read. One that cannot be read, or for which nothing is written, gives
    /// no example; how many these are is noted. Whether it came to the end: not if `stop` was cancelled.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or no source gives an example; then what the first one failed for is said.
    pub fn write<P: Pair>(
        &mut self,
        generator: &Generator<P>,
        sources: &[Source],
        stop: &CancelToken,
        observer: &dyn Observer,
    ) -> Result<bool> {
        let (done, best) = (self.done.min(sources.len()), self.best);
        let (mut unwritable, mut failed) = (None, None);
        observer.begins("Writing outputs", sources.len() - done);
        // Who stops, and a full disk, end it with the sources that are begun.
        let ended = AtomicBool::new(false);
        let is_over = || ended.load(Ordering::Relaxed) || stop.is_cancelled();
        let over = || bild::Error::Interrupted(Finish::Cancelled);
        let begin = |source: &Source, _| if is_over() { Err(over()) } else { Ok((source.into(), source.clone())) };
        let moved = |source: &mut Source, generation: &mut Generation| {
            generation.without_events();
            if source.tokens().len() > generation.source().tokens().len() {
                *source = generation.source().clone();
            }
            Ok(())
        };
        let finish = |source: Source, output: Output| -> bild::decode::Result<(Source, Vec<Token>, Teacher)> {
            let target = output.tokens;
            let teacher =
                if best > 0 { teacher(generator.pair(), &source, &target, best)? } else { Teacher::default() };
            Ok((source, target, teacher))
        };
        let mut left = false;
        let begun = sources[done..].iter().take_while(|_| !is_over());
        generator.generate_jobs(begun, Order::Given, begin, moved, finish, |i, output| {
            // What comes after one that was not begun has no place.
            left |= matches!(output, Err(bild::Error::Interrupted(_)));
            if unwritable.is_some() || left {
                return;
            }
            let (source, target, teacher) = output.unwrap_or_else(|error| {
                failed.get_or_insert(format!("source {}: {error}", done + i + 1));
                (sources[done + i].clone(), Vec::new(), Teacher::default())
            });
            unwritable = self.add(source.tokens(), &target, &teacher).err();
            ended.store(unwritable.is_some(), Ordering::Relaxed);
            observer.advances();
        });
        observer.ends();
        if let Some(error) = unwritable {
            return Err(error);
        }
        if self.done < sources.len() {
            return Ok(false);
        }
        let without = self.done - self.places.len();
        if self.places.is_empty() {
            let why = failed.unwrap_or_else(|| "nothing was written for any source".into());
            return Err(TrainError::Data(format!("the big model gives no outputs to align on: {why}")));
        }
        if without > 0 {
            let first = failed.map_or(String::new(), |first| format!(" ({first})"));
            observer.notes(&format!("{without} of {} sources have no output and are left out{first}", self.done));
        }
        Ok(true)
    }
}

/// The `best` most likely tokens of the big model at every position of a target.
fn teacher<P: Pair>(pair: &P, source: &Source, target: &[Token], best: usize) -> bild::decode::Result<Teacher> {
    let given: Vec<Token> = [pair.vocabulary().start].iter().chain(target).copied().take(target.len()).collect();
    let mut teacher = Teacher { best, ..Teacher::default() };
    if given.is_empty() {
        return Ok(teacher);
    }
    let mut session = pair.begin(source, &SessionLimit::new(given.len()))?;
    for row in &session.pass(&Pass::verify(0, &given, Want::default().with_logits()))? {
        let logits = row.logits.as_deref().unwrap_or_default();
        let mut tokens: Vec<Token> = (0..logits.len() as Token).collect();
        let larger = |a: &Token, b: &Token| logits[*b as usize].total_cmp(&logits[*a as usize]);
        if best < tokens.len() {
            tokens.select_nth_unstable_by(best, larger);
            tokens.truncate(best);
        }
        tokens.sort_unstable_by(larger);
        teacher.log_probs.extend(tokens.iter().map(|&token| log_prob(row, token)));
        teacher.tokens.extend(tokens);
    }
    Ok(teacher)
}

/// Never so small that a trainer could take it for what is none.
fn log_prob(row: &Row, token: Token) -> f32 {
    row.log_prob(token).clamp(-100.0, 0.0)
}

impl Examples for Outputs {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn lengths(&self, index: usize) -> [usize; 2] {
        [self.places[index].source, self.places[index].target].map(|count| count as usize)
    }

    fn example(&self, index: usize) -> Result<Example> {
        let place = self.places[index];
        let mut bytes = vec![0; place.bytes(self.best) as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(place.at)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|error| unusable(&self.path, &error))?;
        drop(file);
        let numbers = bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")));
        let tokens: Vec<u32> = numbers.collect();
        let (source, rest) = tokens.split_at(place.source as usize);
        let (target, rest) = rest.split_at(place.target as usize);
        let (best, log_probs) = rest.split_at(rest.len() / 2);
        let teacher = (self.best > 0).then(|| Teacher {
            best: self.best,
            tokens: best.to_vec(),
            log_probs: log_probs.iter().map(|bits| f32::from_bits(*bits)).collect(),
        });
        Ok(Example { source: source.to_vec(), target: target.to_vec(), teacher })
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> TrainError {
    let why = match error.kind() {
        ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    };
    refused(path, &why)
}

fn refused(path: &Path, why: &str) -> TrainError {
    TrainError::Data(format!("{} cannot be used: {why}", path.display()))
}
