//! A queue: what it takes ends as it would alone, and what it does not take is said.

mod memory;
mod moody;
mod toy;

use std::{
    future::Future,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Condvar, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use bild_core::{
    CancelToken, Error, Event, Finish, Generator, Model, NoDraft, Output, Pass, Queue, QueueOptions, Request, Result,
    Rows, SessionLimit, Settings, Source, VerifierModel, VerifierSession, Vocabulary,
};
use bild_policies::Lossless;
use memory::{Held, Memory};
use moody::{Random, alone, cancelled, cancels, check_from_outside, content, from_outside, generator, request};
use toy::{Toy, ToySession, random};

#[test]
fn each_ends_as_it_would_alone_whoever_gave_it_and_when() {
    for seed in 0..80 {
        let mut random = Random(seed + 1000);
        let count = 1 + random.below(24) as usize;
        let requests: Vec<_> = (0..count).map(|number| request(number, &mut random)).collect();
        let alone = alone(seed, &requests);

        let tokens = cancels(count);
        let at_once = NonZeroUsize::new(1 + random.below(5) as usize).unwrap();
        let few = NonZeroUsize::new(1 + random.below(4) as usize).unwrap();
        let options = QueueOptions::default().with_max_waiting(few);
        // In threads of one place each, in some of two, or in one.
        let batch_size = [1, 2, 16][random.below(3) as usize];
        let queue = generator(seed, &tokens, batch_size).with_at_once(at_once).queue(options);
        let threads = 3;
        let found = thread::scope(|scope| {
            let client = |thread: usize| {
                let (queue, requests, tokens) = (queue.clone(), &requests, &tokens);
                move || {
                    let numbers = (thread..count).step_by(threads);
                    let responses: Vec<_> =
                        numbers.map(|number| (number, queue.send(cancelled(number, requests, tokens)))).collect();
                    let ended = responses.into_iter().map(|(number, response)| {
                        let output = response.and_then(|mut response| {
                            let events: Vec<Event> = std::iter::from_fn(|| response.recv()).collect();
                            let output = response.output()?;
                            assert_eq!(output.events, events, "every event came");
                            Ok(output)
                        });
                        (number, content(output))
                    });
                    ended.collect::<Vec<_>>()
                }
            };
            let clients: Vec<_> = (0..threads).map(|thread| scope.spawn(client(thread))).collect();
            let mut found: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
            found.sort();
            found.into_iter().map(|(_, content)| content).collect::<Vec<_>>()
        });
        assert_eq!(found, alone, "seed {seed}");
        queue.shutdown();
        assert_eq!((queue.waiting(), queue.running()), (0, 0));
    }
}

/// A verifier whose passes wait until a gate is open.
struct Gated {
    toy: Toy,
    gate: Gate,
    memory: Memory,
}

#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

struct GatedSession {
    inner: ToySession,
    gate: Gate,
    _held: Held,
}

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

impl Model for Gated {
    fn bytes_for(&self, source: usize, _tokens: usize) -> u64 {
        10 * source as u64
    }

    fn batch_size(&self) -> usize {
        self.toy.batch_size()
    }

    type Session = GatedSession;

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<GatedSession> {
        let inner = self.toy.begin(source, limit)?;
        Ok(GatedSession { inner, gate: self.gate.clone(), _held: self.memory.hold(source) })
    }
}

impl VerifierModel for Gated {
    fn vocabulary(&self) -> &Vocabulary {
        self.toy.vocabulary()
    }
}

impl VerifierSession for GatedSession {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.gate.pass();
        self.inner.score(pass)
    }
}

/// A generator that writes five tokens, and makes passes of so many together once its gate is open.
fn gated_generator(batch_size: usize) -> (Generator<(NoDraft, Gated)>, Gate) {
    let gate = Gate::default();
    let toy = Toy::new(&Arc::default(), random(3, 6.0)).with_batch_size(batch_size);
    let model = Gated { toy, gate: gate.clone(), memory: Memory::default() };
    let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap();
    (generator.with_settings(Settings::default().with_max_new_tokens(5).with_end_tokens([])), gate)
}

/// A queue with one place, and its gate.
fn gated(max_waiting: usize, options: QueueOptions) -> (Queue<Request, Event, Output>, Gate) {
    let (generator, gate) = gated_generator(1);
    let options = options.with_max_waiting(NonZeroUsize::new(max_waiting).unwrap());
    (generator.with_at_once(NonZeroUsize::MIN).queue(options), gate)
}

fn source() -> Request {
    Request::new(Source::new([2]))
}

/// Sources of one, two and one tokens.
fn one_two_one() -> [Source; 3] {
    [(0, 1), (1, 2), (2, 1)].map(|(number, length)| Source::new(vec![number; length]))
}

fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_waits_is_limited_and_who_leaves_makes_room() {
    let (queue, gate) = gated(2, QueueOptions::default());
    let first = queue.send(source()).unwrap();
    until(|| queue.running() == 1);
    let (second, third) = (queue.try_send(source()).unwrap(), queue.try_send(source()).unwrap());
    assert_eq!(queue.waiting(), 2);
    let full = queue.try_send(source()).unwrap_err();
    assert!(matches!(full, Error::QueueFull { limit: 2 }), "{full}");
    assert_eq!(full.to_string(), "the queue is full: 2 requests wait already (`max_waiting`)");

    drop(second);
    let fourth = queue.try_send(source()).unwrap();
    // One that waits for room gets it when another begins.
    let (sent, fifth) = mpsc::channel();
    thread::spawn({
        let queue = queue.clone();
        move || sent.send(queue.send(source()).unwrap()).unwrap()
    });
    assert!(fifth.recv_timeout(Duration::from_millis(30)).is_err(), "there is no room");
    gate.open();
    for response in [first, third, fourth, fifth.recv().unwrap()] {
        assert_eq!(response.output().unwrap().tokens.len(), 5);
    }
}

#[test]
fn time_passes_for_those_that_wait() {
    let options = QueueOptions::default().with_max_wait(Duration::from_millis(20));
    let (queue, gate) = gated(9, options);
    let first = queue.send(source()).unwrap();
    until(|| queue.running() == 1);
    let settings = Settings::default().with_deadline(Duration::from_millis(5));
    let late = queue.send(source().with_settings(settings)).unwrap();
    let long = queue.send(source()).unwrap();
    let client = CancelToken::default();
    let cancelled = queue.send(source().with_cancel(client.clone())).unwrap();
    client.cancel();
    thread::sleep(Duration::from_millis(30));
    gate.open();
    assert_eq!(first.output().unwrap().finish, Finish::MaxNewTokens);
    assert_eq!(late.output().unwrap().finish, Finish::Deadline);
    assert_eq!(cancelled.output().unwrap().finish, Finish::Cancelled);
    let error = long.output().unwrap_err();
    assert!(matches!(error, Error::QueueTimeout { .. }), "{error}");
}

#[test]
fn a_sender_that_is_refused_leaves_its_place_to_the_next() {
    let (queue, gate) = gated(1, QueueOptions::default());
    let first = queue.send(source()).unwrap();
    until(|| queue.running() == 1);
    let second = queue.send(source()).unwrap();
    // All wait for the one place; the first of them have nothing to put there.
    let (sent, found) = mpsc::channel();
    let sender = |request: Request| {
        let (queue, sent) = (queue.clone(), sent.clone());
        thread::spawn(move || sent.send(queue.send(request).and_then(|response| response.output())).unwrap());
        thread::sleep(Duration::from_millis(20));
    };
    (0..3).for_each(|_| sender(Source::new([]).into()));
    sender(source());
    gate.open();
    assert!(first.output().is_ok() && second.output().is_ok());
    let all = (0..4).map(|_| found.recv_timeout(Duration::from_secs(20)).expect("none is forgotten"));
    assert_eq!(all.filter(|output| matches!(output, Err(Error::EmptySource))).count(), 3);
}

#[test]
fn time_passes_for_those_that_wait_for_memory() {
    let (generator, gate) = gated_generator(1);
    let settings = generator.settings().clone();
    let generator = generator.with_max_bytes(10).with_at_once(NonZeroUsize::new(2).unwrap());
    let queue = generator.queue(QueueOptions::default().with_max_wait(Duration::from_millis(50)));
    let first = queue.send(source()).unwrap();
    until(|| queue.running() == 1);
    // The first has all the memory, and does not go on.
    let (sent, found) = mpsc::channel();
    let deadline = source().with_settings(settings.with_deadline(Duration::from_millis(50))).without_max_wait();
    for request in [deadline, source()] {
        let (response, sent) = (queue.send(request).unwrap(), sent.clone());
        thread::spawn(move || sent.send(response.output()).unwrap());
    }
    assert_eq!((queue.waiting(), queue.running()), (2, 1));
    let mut found = (0..2).map(|_| found.recv_timeout(Duration::from_secs(20)).expect("none waits for the first"));
    let (late, impatient) = match [found.next(), found.next()] {
        [Some(late @ Ok(_)), Some(impatient)] | [Some(impatient), Some(late)] => (late, impatient),
        _ => unreachable!("there are two"),
    };
    assert_eq!(late.unwrap().finish, Finish::Deadline);
    assert!(matches!(impatient, Err(Error::QueueTimeout { .. })));
    gate.open();
    assert_eq!(first.output().unwrap().tokens.len(), 5);
}

/// A small one does not take the memory that a large one before it waits for.
#[test]
fn none_overtakes_one_that_waits_for_memory() {
    let (generator, gate) = gated_generator(1);
    let memory = generator.pair().1.memory.clone();
    let generator = generator.with_max_bytes(20).with_at_once(NonZeroUsize::new(3).unwrap());
    let queue = generator.queue(QueueOptions::default());
    let all = one_two_one().map(|source| queue.send(source).unwrap());
    until(|| queue.running() > 0);
    thread::sleep(Duration::from_millis(60));
    assert_eq!((queue.waiting(), queue.running()), (2, 1));
    gate.open();
    for response in all {
        assert_eq!(response.output().unwrap().tokens.len(), 5);
    }
    let used = memory.used();
    assert_eq!((used.order, used.most), (vec![0, 1, 2], [1, 2]));
}

/// One that waits for memory does not hold up those that its driver has already.
#[test]
fn the_others_go_on_while_one_waits_for_memory() {
    let (generator, gate) = gated_generator(3);
    let memory = generator.pair().1.memory.clone();
    let endless = generator.settings().clone().with_max_new_tokens(60_000);
    let generator = generator.with_max_bytes(20).with_at_once(NonZeroUsize::new(3).unwrap());
    let queue = generator.queue(QueueOptions::default());
    let [first, second, third] = one_two_one();
    let mut first = queue.send(Request::new(first).with_settings(endless)).unwrap();
    until(|| queue.running() == 1);
    let others = [second, third].map(|source| queue.send(source).unwrap());
    gate.open();
    // A pass makes two events: its driver looks for more many times.
    assert!((0..100).all(|_| first.recv().is_some()));
    assert_eq!((queue.waiting(), queue.running()), (2, 1));
    drop(first);
    for response in others {
        assert_eq!(response.output().unwrap().tokens.len(), 5);
    }
    let used = memory.used();
    assert_eq!((used.order, used.most), (vec![0, 1, 2], [1, 2]));
}

#[test]
fn a_further_part_waits_for_as_long_as_it_takes() {
    let (queue, gate) = gated(9, QueueOptions::default().with_max_wait(Duration::from_millis(5)));
    let first = queue.send(source()).unwrap();
    until(|| queue.running() == 1);
    let (other, part) = (queue.send(source()).unwrap(), queue.send(source().without_max_wait()).unwrap());
    thread::sleep(Duration::from_millis(20));
    gate.open();
    assert!(first.output().is_ok() && part.output().is_ok());
    assert!(matches!(other.output(), Err(Error::QueueTimeout { .. })));
}

#[test]
fn a_response_that_is_dropped_ends_its_generation() {
    let (queue, gate) = gated(9, QueueOptions::default());
    gate.open();
    let endless = Settings::default().with_max_new_tokens(60_000).with_end_tokens([]);
    let mut response = queue.send(source().with_settings(endless)).unwrap();
    assert!(response.recv().is_some());
    drop(response);
    until(|| queue.running() == 0);
    assert_eq!(queue.send(source()).unwrap().output().unwrap().tokens.len(), 5);
}

#[test]
fn what_ends_some_from_outside_leaves_the_others_as_they_are() {
    for batch_size in [1, 16] {
        let (generator, gate) = gated_generator(batch_size);
        let queue = generator.with_at_once(NonZeroUsize::new(4).unwrap()).queue(QueueOptions::default());
        gate.open();
        let cancel = CancelToken::default();
        let [first, mut cancelled, late, last] = from_outside(&cancel).map(|request| queue.send(request).unwrap());
        assert!((0..10).all(|_| cancelled.recv().is_some()));
        cancel.cancel();
        let found = [first, cancelled, late, last].map(|response| response.output().unwrap());
        let (alone, gate) = gated_generator(1);
        gate.open();
        check_from_outside(&found, &alone);
    }
}

#[test]
fn shutdown_finishes_what_was_taken() {
    let (queue, gate) = gated(3, QueueOptions::default());
    let mut taken = vec![queue.send(source()).unwrap()];
    until(|| queue.running() == 1);
    taken.extend((0..3).map(|_| queue.try_send(source()).unwrap()));
    let waits = thread::spawn({
        let queue = queue.clone();
        move || queue.send(source()).map(drop)
    });
    thread::sleep(Duration::from_millis(10));
    queue.close();
    assert!(matches!(waits.join().unwrap(), Err(Error::QueueClosed)));
    assert!(matches!(queue.try_send(source()), Err(Error::QueueClosed)));
    assert_eq!(queue.waiting(), 3);
    gate.open();
    queue.shutdown();
    assert_eq!((queue.waiting(), queue.running()), (0, 0));
    for response in taken {
        assert_eq!(response.output().unwrap().tokens.len(), 5);
    }
    queue.shutdown();
}

#[test]
fn what_was_taken_outlives_the_handles() {
    let (queue, gate) = gated(3, QueueOptions::default());
    let responses = [queue.send(source()).unwrap(), queue.clone().send(source()).unwrap()];
    drop(queue);
    gate.open();
    for response in responses {
        assert_eq!(response.output().unwrap().tokens.len(), 5);
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_at_once() {
    let (queue, _gate) = gated(3, QueueOptions::default());
    assert!(matches!(queue.send(Source::new([])), Err(Error::EmptySource)));
    let nothing = Settings::default().with_max_new_tokens(0);
    assert!(matches!(queue.send(source().with_settings(nothing)), Err(Error::Setting { .. })));
    assert!(queue.send(Source::new([2]).with_guess([99])).is_err());
}

/// Polls a future in this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_task_awaits_the_output() {
    let (queue, gate) = gated(200, QueueOptions::default());
    let responses: Vec<_> = (0..100).map(|_| queue.try_send(source()).unwrap()).collect();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        gate.open();
    });
    block_on(async {
        for mut response in responses {
            assert_eq!((&mut response).await.unwrap().tokens.len(), 5);
            assert!((&mut response).await.unwrap_err().to_string().contains("was taken before"));
        }
    });
}

#[test]
fn options_as_json() {
    let options: QueueOptions = serde_json::from_str(r#"{"max_waiting": 3, "max_wait": 0.5}"#).unwrap();
    assert_eq!((options.max_waiting.get(), options.max_wait), (3, Some(Duration::from_millis(500))));
    assert!(serde_json::from_str::<QueueOptions>(r#"{"max_waiting": 0}"#).is_err());
    assert_eq!(QueueOptions::default().max_waiting.get(), 1024);
}
