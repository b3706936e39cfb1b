//! An answer on its way: the sources of a text, generated together and given out one after the other.

use std::{collections::VecDeque, convert::Infallible, mem, sync::Arc};

use axum::response::sse::Event as Message;
use bild::{
    Output, TextOutput,
    decode::{Event, Finish, Response, Statistics},
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::{Service, Step, body::Body, failure::Failure, metrics::Begun};

/// Dropping it cancels what is left of it.
pub(super) struct Answer {
    service: Arc<Service>,
    events: bool,
    /// What stands before the first source.
    before: String,
    /// The sources that are not done, with the space after each.
    parts: VecDeque<(Response<Step, TextOutput>, String)>,
    done: Vec<TextOutput>,
    text: String,
}

/// What comes of it next.
enum Next {
    /// Of the source with this number.
    Step(usize, Step),
    Text(String),
    End(Result<Value, Failure>),
}

impl Answer {
    pub(super) fn begin(service: Arc<Service>, body: &Body) -> Result<Self, Failure> {
        let text = &*body.text;
        let (before, sources) = match &service.language {
            Some(language) if !text.trim().is_empty() => {
                let (before, sentences) = bild_eval::sentences(language, text);
                (before, sentences.into_iter().map(|sentence| (sentence.text, sentence.space)).collect())
            }
            _ => ("", vec![(text, "")]),
        };
        if sources.len() > service.most_sources {
            return Err(Failure::too_long(format_args!(
                "the text has {} sentences, expected at most {}",
                sources.len(),
                service.most_sources
            )));
        }
        let (request, seed) = (body.request(&service)?, body.seed.unwrap_or(service.settings.seed));
        let parts = sources.into_iter().enumerate().map(|(i, (source, space))| {
            // Sentences draw from streams of their own, as those that `translate` reads.
            let request = request.clone().with_text(source.to_owned()).with_seed(seed.wrapping_add(i as u64));
            // The further sources wait for those before them, not for a turn of the text's.
            let response = service.queue.try_send(if i == 0 { request } else { request.without_max_wait() })?;
            Ok((response, space.to_owned()))
        });
        let parts = parts.collect::<Result<_, Failure>>()?;
        Ok(Self { events: body.events, before: before.into(), parts, done: Vec::new(), text: String::new(), service })
    }

    async fn next(&mut self) -> Next {
        let before = mem::take(&mut self.before);
        if !before.is_empty() {
            return self.give(before);
        }
        let Some((response, space)) = self.parts.front_mut() else { return Next::End(Ok(self.object())) };
        if let Some(step) = response.next().await {
            self.text += &step.text;
            return Next::Step(self.done.len(), step);
        }
        match response.await {
            Ok(output) => self.done.push(output),
            Err(error) => return Next::End(Err(error.into())),
        }
        let space = mem::take(space);
        self.parts.pop_front();
        if self.done.last().is_some_and(|done| done.output.finish == Finish::Stopped) {
            // At a stop string the whole text ends.
            self.parts.clear();
            return Next::Text(String::new());
        }
        self.give(space)
    }

    fn give(&mut self, text: String) -> Next {
        self.text += &text;
        Next::Text(text)
    }

    /// Of the sources that are done.
    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.done.iter().map(|done| &done.output)
    }

    /// The whole of it.
    fn object(&self) -> Value {
        let mut statistics = Statistics::default();
        self.outputs().for_each(|output| statistics += &output.statistics);
        // Where one source was not finished, so is the text.
        let whole = [Finish::EndOfSequence, Finish::StopToken];
        let finish = self.outputs().map(|output| output.finish);
        let finish = finish.reduce(|first, next| if whole.contains(&first) { next } else { first });
        let mut object = json!({
            "text": self.text,
            "tokens": statistics.tokens,
            "finish": finish,
            "source_tokens": self.outputs().map(|output| output.source_tokens).sum::<usize>(),
            "truncated": self.outputs().any(|output| output.truncated),
            "statistics": statistics,
        });
        if self.events {
            let events = self.outputs().enumerate();
            let events = events.flat_map(|(part, output)| output.events.iter().map(move |event| (part, event)));
            object["events"] = events.map(|(part, event)| self.event(part, event)).collect();
        }
        object
    }

    /// An event, with the number of its source and the text of its token.
    fn event(&self, part: usize, event: &Event) -> Value {
        let mut object = json!(event);
        object["part"] = part.into();
        if let Event::Drafted { token, .. } | Event::Committed { token, .. } = event {
            object["piece"] = self.service.tokenizer.piece(*token).unwrap_or_default().replace('▁', " ").into();
        }
        object
    }

    pub(super) async fn whole(mut self, mut begun: Begun) -> Result<Value, Failure> {
        loop {
            let next = self.next().await;
            begun.outputs(self.outputs());
            match next {
                Next::Step(_, step) => begun.text(&step.text),
                Next::Text(_) => {}
                Next::End(end) => {
                    begun.ended(&end);
                    return end;
                }
            }
        }
    }

    /// As server-sent events: `text` for each piece, `event` if they are asked for, and `done` or `error`.
    pub(super) fn events(self, begun: Begun) -> impl Stream<Item = Result<Message, Infallible>> {
        let messages = stream::unfold(Some((self, begun)), |state| async {
            let (mut answer, mut begun) = state?;
            let text = |text: &str| (!text.is_empty()).then(|| message("text", &json!(text)));
            let next = answer.next().await;
            begun.outputs(answer.outputs());
            let (messages, ends) = match next {
                Next::Step(part, step) => {
                    begun.text(&step.text);
                    let event = answer.events.then(|| message("event", &answer.event(part, &step.event)));
                    (vec![event, text(&step.text)], false)
                }
                Next::Text(space) => (vec![text(&space)], false),
                Next::End(end) => {
                    begun.ended(&end);
                    let last = match end {
                        Ok(object) => message("done", &object),
                        Err(failure) => message("error", &failure.object()),
                    };
                    (vec![Some(last)], true)
                }
            };
            let messages = messages.into_iter().flatten().map(Ok);
            Some((stream::iter(messages.collect::<Vec<_>>()), (!ends).then_some((answer, begun))))
        });
        messages.flatten()
    }
}

fn message(kind: &str, data: &Value) -> Message {
    // One line, as JSON is.
    Message::default().event(kind).data(data.to_string())
}
