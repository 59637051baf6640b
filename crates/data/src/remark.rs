//! Sentences about pictures of a source, which are named when the place of the source is known: the cache keeps their indices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::account::{Account, LeftOut, Weight};

/// Pictures that are named at most.
const NAMED: usize = 3;

/// Pictures of one kind: their number, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pictures {
    pub count: usize,
    pub first: Vec<usize>,
}

impl Pictures {
    pub fn add(&mut self, index: usize) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(index);
        }
    }

    pub fn of(indices: impl IntoIterator<Item = usize>) -> Self {
        let mut pictures = Self::default();
        indices.into_iter().for_each(|index| pictures.add(index));
        pictures
    }
}

/// A sentence of the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Remark {
    /// A choice, and the pictures that it is about.
    Decided { choice: String, pictures: Pictures },
    /// A part of pictures that is not used; `weight` is a doubt.
    LeftOut { what: String, reason: String, is_doubt: bool, pictures: Pictures },
}

impl Remark {
    pub fn decided(choice: impl Into<String>, pictures: Pictures) -> Self {
        Self::Decided { choice: choice.into(), pictures }
    }

    /// Adds it to the account.
    pub fn say(&self, account: &mut Account, title: &dyn Fn(usize) -> PathBuf) {
        let names = |pictures: &Pictures| -> Vec<String> {
            pictures.first.iter().map(|&index| title(index).display().to_string()).collect()
        };
        match self {
            Self::Decided { choice, pictures } if pictures.first.is_empty() => account.decided(choice.as_str()),
            Self::Decided { choice, pictures } => {
                let more = if pictures.count > pictures.first.len() { ", …" } else { "" };
                account.decided(format!("{choice} ({}{more})", names(pictures).join(", ")));
            }
            Self::LeftOut { what, reason, is_doubt, pictures } => account.leave_out_all(LeftOut {
                what: what.clone(),
                reason: reason.clone(),
                count: 1,
                examples: names(pictures),
                weight: if *is_doubt { Weight::Doubt } else { Weight::Note },
            }),
        }
    }
}
