//! What of a source was used, and what was not, with the reasons: nothing is passed over in silence.

use std::fmt::{self, Display};

use serde::Serialize;

/// Examples that are kept of each thing that was left out.
const EXAMPLES: usize = 3;

/// How much something that was left out matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Nobody misses it: what systems and programs leave behind in folders.
    Litter,
    /// It is said, and no reason to stop.
    Note,
    /// It may change what is learnt: more than a few pictures, or labels. A training does not begin until the configuration
    /// says that it is meant.
    Doubt,
}

/// Things of one kind that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The kind, as in `files .heic` or `column label of train.csv`.
    pub what: String,
    /// The reason, and what to do.
    pub reason: String,
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub examples: Vec<String>,
    /// How much they matter.
    pub weight: Weight,
}

impl Display for LeftOut {
    /// `10 files .heic left out: this build reads no HEIC (a/1.heic, a/2.heic, a/3.heic, …)`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count > 1 {
            write!(formatter, "{} ", self.count)?;
        }
        write!(formatter, "{} left out: {}", self.what, self.reason)?;
        // a single thing is often its own name
        let examples: Vec<&str> = self.examples.iter().map(String::as_str).filter(|name| *name != self.what).collect();
        if !examples.is_empty() {
            let more = if self.count > self.examples.len() { ", …" } else { "" };
            write!(formatter, " ({}{more})", examples.join(", "))?;
        }
        Ok(())
    }
}

/// The account of a source: decisions that the reader made, and everything that it did not use.
///
/// ```
/// use data::{Account, Weight};
/// let mut account = Account::default();
/// account.decided("labels are column `label` of metadata.csv");
/// account.leave_out(Weight::Note, "files .heic", "this build reads no HEIC", "a.heic");
/// account.leave_out(Weight::Note, "files .heic", "this build reads no HEIC", "b.heic");
/// assert_eq!(
///     account.lines(),
///     ["labels are column `label` of metadata.csv", "2 files .heic left out: this build reads no HEIC (a.heic, b.heic)"]
/// );
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// What the reader found and chose, a sentence each.
    pub decisions: Vec<String>,
    /// What it did not use.
    pub left_out: Vec<LeftOut>,
}

impl Account {
    /// Notes a choice of the reader, once.
    pub fn decided(&mut self, decision: impl Into<String>) {
        let decision = decision.into();
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }

    /// Notes one thing that is not used; those of the same kind and reason are counted together, with the greatest weight.
    pub fn leave_out(
        &mut self,
        weight: Weight,
        what: impl Into<String>,
        reason: impl Into<String>,
        example: impl Display,
    ) {
        self.leave_out_all(LeftOut {
            what: what.into(),
            reason: reason.into(),
            count: 1,
            examples: vec![example.to_string()],
            weight,
        });
    }

    /// Notes several things that are not used.
    pub fn leave_out_all(&mut self, left_out: LeftOut) {
        let same = |other: &&mut LeftOut| (&other.what, &other.reason) == (&left_out.what, &left_out.reason);
        match self.left_out.iter_mut().find(same) {
            Some(same) => {
                same.count += left_out.count;
                same.weight = same.weight.max(left_out.weight);
                same.examples.extend(left_out.examples);
                same.examples.truncate(EXAMPLES);
            }
            None => {
                let mut left_out = left_out;
                left_out.examples.truncate(EXAMPLES);
                self.left_out.push(left_out);
            }
        }
    }

    /// Adds the account of a part of the source.
    pub fn add(&mut self, part: Account) {
        part.decisions.into_iter().for_each(|decision| self.decided(decision));
        part.left_out.into_iter().for_each(|left_out| self.leave_out_all(left_out));
    }

    /// A line for each decision and each kind of thing that was left out, what matters most last; litter is one line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.decisions.clone();
        let litter: usize = self.of_weight(Weight::Litter).map(|left_out| left_out.count).sum();
        if litter > 0 {
            let kinds: Vec<&str> = self.of_weight(Weight::Litter).map(|left_out| left_out.what.as_str()).collect();
            lines.push(format!("{litter} files and folders of systems and programs left out: {}", kinds.join(", ")));
        }
        lines.extend(self.of_weight(Weight::Note).chain(self.of_weight(Weight::Doubt)).map(LeftOut::to_string));
        lines
    }

    /// What may change what is learnt.
    pub fn doubts(&self) -> impl Iterator<Item = &LeftOut> {
        self.of_weight(Weight::Doubt)
    }

    fn of_weight(&self, weight: Weight) -> impl Iterator<Item = &LeftOut> {
        self.left_out.iter().filter(move |left_out| left_out.weight == weight)
    }
}

/// The weight of `count` pictures that are left out beside `used` ones: a few, up to a hundredth, are a note, more a doubt, unless
/// they are meant to be left out.
pub fn weight_of_pictures(count: usize, used: usize, is_meant: bool) -> Weight {
    if is_meant || count.saturating_mul(100) <= used { Weight::Note } else { Weight::Doubt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_kind_are_counted_and_the_dearest_come_last() {
        let mut account = Account::default();
        for number in 0..10 {
            account.leave_out(Weight::Doubt, "files .heic", "this build reads no HEIC", format!("{number}.heic"));
        }
        account.leave_out(Weight::Litter, ".DS_Store", "", "cat/.DS_Store");
        account.leave_out(Weight::Litter, "Thumbs.db", "", "dog/Thumbs.db");
        account.leave_out(Weight::Note, "readme.txt", "is no picture", "readme.txt");
        let mut whole = Account::default();
        whole.decided("classes are the sub-folders");
        whole.decided("classes are the sub-folders");
        whole.add(account);
        assert_eq!(
            whole.lines(),
            [
                "classes are the sub-folders",
                "2 files and folders of systems and programs left out: .DS_Store, Thumbs.db",
                "readme.txt left out: is no picture",
                "10 files .heic left out: this build reads no HEIC (0.heic, 1.heic, 2.heic, …)",
            ]
        );
        assert_eq!(whole.doubts().map(|doubt| doubt.count).collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn a_few_pictures_of_many_are_no_doubt() {
        assert_eq!(weight_of_pictures(1, 100, false), Weight::Note);
        assert_eq!(weight_of_pictures(1, 99, false), Weight::Doubt);
        assert_eq!(weight_of_pictures(10, 6, true), Weight::Note);
    }
}
