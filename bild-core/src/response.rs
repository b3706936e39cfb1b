use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
    task::{Context, Poll, Waker},
};

use crate::{CancelGuard, Error, Result};

/// What comes of a request that a [`Queue`](crate::Queue) took: items while it is generated, then the output. Dropping it cancels the
/// generation.
///
/// A thread takes the items by [`recv`](Self::recv) and waits for [`output`](Self::output). An async task awaits the response for its
/// output; with the feature `stream` it is a `futures_core::Stream` of the items, too, and may be awaited after they have ended.
pub struct Response<I, O> {
    messages: mpsc::Receiver<Message<I, O>>,
    waker: Arc<Mutex<Option<Waker>>>,
    /// Once there is one, and until it is taken.
    output: Option<Result<O>>,
    ended: bool,
    _cancel: CancelGuard,
}

enum Message<I, O> {
    Item(I),
    End(Result<O>),
}

impl<I, O> Response<I, O> {
    /// Waits for the next item. Nothing if the generation has ended.
    pub fn recv(&mut self) -> Option<I> {
        if self.ended {
            return None;
        }
        let message = self.messages.recv().ok();
        self.item(message)
    }

    /// Waits for the output; items that were not taken are passed over.
    ///
    /// # Errors
    ///
    /// If a model or the policy fails; [`Error::QueueTimeout`] if the request has waited too long for its turn.
    pub fn output(mut self) -> Result<O> {
        while self.recv().is_some() {}
        self.take()
    }

    /// The item of a message, or else keeps the output. No message means that the driver is gone.
    fn item(&mut self, message: Option<Message<I, O>>) -> Option<I> {
        match message {
            Some(Message::Item(item)) => return Some(item),
            Some(Message::End(output)) => self.output = Some(output),
            None => self.output = Some(Err(gone())),
        }
        self.ended = true;
        None
    }

    fn take(&mut self) -> Result<O> {
        self.output.take().unwrap_or_else(|| Err(Error::model("the output of this response was taken before")))
    }

    /// The next item as a task gets it.
    fn poll_item(&mut self, context: &Context<'_>) -> Poll<Option<I>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let message = match self.messages.try_recv() {
            Err(mpsc::TryRecvError::Empty) => {
                *lock(&self.waker) = Some(context.waker().clone());
                // One may have come before the waker was there.
                match self.messages.try_recv() {
                    Err(mpsc::TryRecvError::Empty) => return Poll::Pending,
                    message => message,
                }
            }
            message => message,
        };
        Poll::Ready(self.item(message.ok()))
    }
}

/// Nothing in it is pinned.
impl<I, O> Unpin for Response<I, O> {}

/// The output, as an async task waits for it; items that were not taken are passed over.
impl<I, O> Future for Response<I, O> {
    type Output = Result<O>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<O>> {
        loop {
            match self.poll_item(context) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(self.take()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(feature = "stream")]
impl<I, O> futures_core::Stream for Response<I, O> {
    type Item = I;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<I>> {
        self.poll_item(context)
    }
}

/// Where the messages of a response come from.
pub(crate) struct Reply<I, O> {
    messages: mpsc::Sender<Message<I, O>>,
    waker: Arc<Mutex<Option<Waker>>>,
    ended: bool,
}

impl<I, O> Reply<I, O> {
    /// One, with the response that it is for; dropping that cancels by `cancel`.
    pub(crate) fn new(cancel: CancelGuard) -> (Self, Response<I, O>) {
        let (send, receive) = mpsc::channel();
        let waker = Arc::default();
        let reply = Self { messages: send, waker: Arc::clone(&waker), ended: false };
        (reply, Response { messages: receive, waker, output: None, ended: false, _cancel: cancel })
    }

    pub(crate) fn item(&self, item: I) {
        self.send(Message::Item(item));
    }

    pub(crate) fn end(mut self, output: Result<O>) {
        self.ended = true;
        self.send(Message::End(output));
    }

    fn send(&self, message: Message<I, O>) {
        // Nobody takes it if the response was dropped.
        let _ = self.messages.send(message);
        let waker = lock(&self.waker).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<I, O> Drop for Reply<I, O> {
    fn drop(&mut self) {
        if !self.ended {
            self.send(Message::End(Err(gone())));
        }
    }
}

fn gone() -> Error {
    Error::Panicked("the driver of the queue has ended".into())
}

fn lock(waker: &Mutex<Option<Waker>>) -> std::sync::MutexGuard<'_, Option<Waker>> {
    waker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<I, O> fmt::Debug for Response<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("ended", &self.ended).finish_non_exhaustive()
    }
}
