use std::{array, ops::Deref, slice, vec};

use crate::Row;

/// The rows of a pass, in order: made of a [`Row`], of an [`Option`] or of a [`Vec`] by `into`, read as a slice. A single row,
/// which is what most draft steps return, takes no allocation.
///
/// ```
/// use bild::decode::{Row, Rows};
///
/// let one: Rows = Row::new(5, 0.9).into();
/// let two = Rows::from(vec![Row::new(5, 0.9), Row::new(7, 0.4)]);
/// assert_eq!((one.len(), two[1].argmax, Rows::default().len()), (1, 7, 0));
/// ```
#[derive(Clone, Debug)]
pub struct Rows(Few);

#[derive(Clone, Debug)]
enum Few {
    One([Row; 1]),
    Other(Vec<Row>),
}

impl Default for Rows {
    fn default() -> Self {
        Self(Few::Other(Vec::new()))
    }
}

impl From<Row> for Rows {
    #[inline]
    fn from(row: Row) -> Self {
        Self(Few::One([row]))
    }
}

impl From<Option<Row>> for Rows {
    fn from(row: Option<Row>) -> Self {
        row.map_or_else(Self::default, Self::from)
    }
}

impl From<Vec<Row>> for Rows {
    fn from(rows: Vec<Row>) -> Self {
        Self(Few::Other(rows))
    }
}

impl FromIterator<Row> for Rows {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        Vec::from_iter(rows).into()
    }
}

impl Deref for Rows {
    type Target = [Row];

    #[inline]
    fn deref(&self) -> &[Row] {
        match &self.0 {
            Few::One(row) => row,
            Few::Other(rows) => rows,
        }
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = slice::Iter<'a, Row>;

    fn into_iter(self) -> slice::Iter<'a, Row> {
        self.iter()
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = RowsIter;

    #[inline]
    fn into_iter(self) -> RowsIter {
        RowsIter(match self.0 {
            Few::One(row) => FewIter::One(row.into_iter()),
            Few::Other(rows) => FewIter::Other(rows.into_iter()),
        })
    }
}

/// The rows of [`Rows`], one after the other.
#[derive(Clone, Debug)]
pub struct RowsIter(FewIter);

#[derive(Clone, Debug)]
enum FewIter {
    One(array::IntoIter<Row, 1>),
    Other(vec::IntoIter<Row>),
}

impl Iterator for RowsIter {
    type Item = Row;

    #[inline]
    fn next(&mut self) -> Option<Row> {
        match &mut self.0 {
            FewIter::One(row) => row.next(),
            FewIter::Other(rows) => rows.next(),
        }
    }
}
