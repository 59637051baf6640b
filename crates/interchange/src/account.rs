//! What of a source was used, and what was not.

use std::fmt;

/// What of a source was used, what was not, and what was assumed because the source does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// What was used: a phrase for each.
    pub used: Vec<String>,
    /// What was not used, with the reason: a phrase for each.
    pub not_used: Vec<String>,
    /// What the source does not say and was assumed, with the option that sets it: a phrase for each.
    pub assumed: Vec<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, phrases) in [("used", &self.used), ("not used", &self.not_used), ("assumed", &self.assumed)] {
            for phrase in phrases {
                writeln!(formatter, "{title:<10}{phrase}")?;
            }
        }
        Ok(())
    }
}
