use super::{
    lanes::{Int4Block, Int8Block},
    product::Panels,
    rounded::RoundedPanels,
};
use crate::{Precision, Threads};

/// A weight matrix, laid out for products with a few rows when it is loaded.
#[derive(Clone, Debug)]
pub struct Matrix(Held);

#[derive(Clone, Debug)]
enum Held {
    F32(Panels),
    Int8(RoundedPanels<Int8Block>),
    Int4(RoundedPanels<Int4Block>),
}

/// The same for each way to hold a matrix.
macro_rules! each {
    ($matrix:expr, $panels:ident => $do:expr) => {
        match $matrix {
            Held::F32($panels) => $do,
            Held::Int8($panels) => $do,
            Held::Int4($panels) => $do,
        }
    };
}

impl Matrix {
    /// A matrix of `[outputs, width]` whose rows are yet to come, multiplied with by these threads.
    pub fn new(precision: Precision, outputs: usize, width: usize, threads: Threads) -> Self {
        Self(match precision {
            // Flex refuses those of 16 bits.
            Precision::F32 | Precision::F16 | Precision::Bf16 => Held::F32(Panels::new(outputs, width, threads)),
            Precision::Int8 => Held::Int8(RoundedPanels::new(outputs, width, threads)),
            Precision::Int4 => Held::Int4(RoundedPanels::new(outputs, width, threads)),
        })
    }

    /// Adds the next `PANEL` rows, or the last ones, as checkpoints store them.
    pub fn push(&mut self, rows: &[f32]) {
        each!(&mut self.0, panels => panels.push(rows));
    }

    /// Some of its rows one after the other, as they are held: `[rows, width]`.
    pub(crate) fn rows(&self, rows: &[u32]) -> Vec<f32> {
        each!(&self.0, panels => rows.iter().flat_map(|&row| panels.row(row as usize)).collect())
    }

    /// The matrix of some of its rows.
    pub(crate) fn select(&self, rows: &[u32]) -> Self {
        Self(match &self.0 {
            Held::F32(panels) => Held::F32(panels.select(rows)),
            Held::Int8(panels) => Held::Int8(panels.select(rows)),
            Held::Int4(panels) => Held::Int4(panels.select(rows)),
        })
    }

    /// `x` (`[rows, width]`) times the transpose of the matrix: `[rows, outputs]`.
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        each!(&self.0, panels => panels.product(x))
    }

    /// The same with inputs of 16 bits where those of [`product`](Self::product) are rounded to 8.
    pub(crate) fn fine_product(&self, x: &[f32]) -> Vec<f32> {
        match &self.0 {
            Held::F32(panels) => panels.product(x),
            Held::Int8(panels) => panels.fine_product(x),
            Held::Int4(panels) => panels.fine_product(x),
        }
    }
}
