//! How the training went: the loss, and what the model does on held-out text, at every look.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use bild_eval::Observer;
use serde::{Deserialize, Serialize};

use crate::{
    Flex,
    data::Examples,
    error::{Result, file},
    t5::T5,
    trainer::{Step, Trainer},
};

/// What one look found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Look {
    /// After so many steps.
    step: usize,
    /// After so many seconds of training.
    seconds: f64,
    /// The mean loss since the look before.
    loss: Option<f64>,
    /// The loss on held-out text.
    held_out: f64,
    /// How often the most likely token is the big model's.
    agreement: f64,
}

/// All looks, kept in a file.
pub(super) struct Curve {
    path: PathBuf,
    file: File,
    looks: Vec<Look>,
    begun: Instant,
    /// The sum of the losses since the last look, and their number.
    taken: (f64, usize),
}

impl Curve {
    /// Goes on with the curve of a training that has taken so many steps: looks at later ones are forgotten.
    pub(super) fn open(path: &Path, steps: usize) -> Result<Self> {
        let text = if path.exists() { fs::read_to_string(path).map_err(file(path, "read"))? } else { String::new() };
        let looks = text.lines().map_while(|line| serde_json::from_str(line).ok());
        let looks: Vec<Look> = looks.take_while(|look: &Look| look.step < steps).collect();
        let kept: String = looks.iter().map(line).collect();
        if kept != text {
            fs::write(path, kept).map_err(file(path, "written"))?;
        }
        let opened = OpenOptions::new().append(true).create(true).open(path).map_err(file(path, "written"))?;
        Ok(Self { path: path.into(), file: opened, looks, begun: Instant::now(), taken: (0.0, 0) })
    }

    /// A step was taken.
    pub(super) fn took(&mut self, step: Step) {
        self.taken.0 += step.loss * step.tokens as f64;
        self.taken.1 += step.tokens;
    }

    /// Looks at the model on held-out text.
    pub(super) fn look(
        &mut self,
        trainer: &Trainer<Flex, T5<Flex>, &dyn Examples>,
        held_out: &dyn Examples,
        observer: &dyn Observer,
    ) -> Result<()> {
        let (sum, tokens) = std::mem::take(&mut self.taken);
        let loss = (tokens > 0).then(|| sum / tokens as f64);
        let score = trainer.score(held_out, trainer.settings().loss)?;
        let before = self.looks.last().map_or(0.0, |look| look.seconds);
        let seconds = before + self.begun.elapsed().as_secs_f64();
        self.begun = Instant::now();
        let (step, held_out, agreement) = (trainer.steps(), score.mean_loss(), score.agreement());
        let look = Look { step, seconds, loss, held_out, agreement };
        self.file.write_all(line(&look).as_bytes()).map_err(file(&self.path, "written"))?;
        self.looks.push(look);
        // Before the first step there is no loss of the training, nor after a checkpoint that was just gone on from.
        let training = loss.map_or_else(String::new, |loss| format!("loss {loss:.3}, "));
        observer.shows(&format!("{training}held-out loss {held_out:.3}, agreement {agreement:.3}"));
        Ok(())
    }

    /// The agreement and both losses over the minutes, as an SVG file.
    pub(super) fn svg(&self) -> String {
        const WIDTH: f64 = 640.0;
        const HEIGHT: f64 = 200.0;
        let minutes = |look: &Look| look.seconds / 60.0;
        let end = self.looks.iter().map(minutes).fold(1e-9, f64::max);
        let mut svg = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 560\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <style>.ink{fill:#1f2328}.paper{fill:#fff}.grid{stroke:#d8dee4}\
             @media(prefers-color-scheme:dark){.ink{fill:#e6e9ee}.paper{fill:#14181f}.grid{stroke:#2a303a}}</style>\n\
             <rect class=\"paper\" width=\"760\" height=\"560\"/>\n",
        );
        type Line = (&'static str, &'static str, fn(&Look) -> Option<f64>);
        let panels: [(&str, f64, &[Line]); 2] = [
            ("agreement with the big model", 40.0, &[("held-out", "#0072b2", |look| Some(look.agreement))]),
            (
                "loss of a token",
                310.0,
                &[("held-out", "#0072b2", |look| Some(look.held_out)), ("training", "#bb7500", |look| look.loss)],
            ),
        ];
        for (title, top, lines) in panels {
            let values = || lines.iter().flat_map(|(_, _, of)| self.looks.iter().filter_map(of));
            let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
            let high = if high > low { high } else { low + 1e-3 };
            let place = |x: f64, y: f64| (80.0 + x / end * WIDTH, top + HEIGHT - (y - low) / (high - low) * HEIGHT);
            _ = writeln!(svg, "<text class=\"ink\" x=\"80\" y=\"{}\" font-weight=\"bold\">{title}</text>", top - 12.0);
            for part in 0..=4 {
                let y = low + (high - low) * f64::from(part) / 4.0;
                let at = place(0.0, y).1;
                _ = writeln!(svg, "<line class=\"grid\" x1=\"80\" x2=\"720\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
                _ = writeln!(
                    svg,
                    "<text class=\"ink\" x=\"72\" y=\"{:.1}\" text-anchor=\"end\">{y:.3}</text>",
                    at + 4.0
                );
                let x = end * f64::from(part) / 4.0;
                let (at, below) = (place(x, low).0, top + HEIGHT + 18.0);
                _ = writeln!(
                    svg,
                    "<text class=\"ink\" x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{x:.1} min</text>"
                );
            }
            for (i, (name, colour, of)) in lines.iter().enumerate() {
                let points = self.looks.iter().filter_map(|look| Some(place(minutes(look), of(look)?)));
                let points: String = points.map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
                _ = writeln!(
                    svg,
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
                );
                let x = 720 - 90 * i;
                _ = writeln!(
                    svg,
                    "<text fill=\"{colour}\" x=\"{x}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
                    top - 12.0
                );
            }
        }
        svg + "</svg>\n"
    }
}

fn line(look: &Look) -> String {
    serde_json::to_string(look).expect("numbers are JSON") + "\n"
}
