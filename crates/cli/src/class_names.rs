//! Classes by name or number: `--class`, names of files, and rows of grids.

use anyhow::bail;

/// Most classes that an error lists.
const LISTED: usize = 20;
/// Most letters of a class in the name of a file.
const LETTERS: usize = 40;

/// The classes of a model or a classifier.
pub struct Classes<'a> {
    /// Their names, in the order of the labels; empty where they have none.
    names: &'a [String],
    count: usize,
}

impl<'a> Classes<'a> {
    /// `count` classes, with the names of a header, which is empty or has as many.
    pub fn new(names: &'a [String], count: usize) -> Self {
        Self { names: if names.len() == count { names } else { &[] }, count }
    }

    /// The label of the class that `--class` asks for: the name, else the name in any letter case, else the number. Where names
    /// are numbers themselves, such as those of folders, a number is a name only.
    ///
    /// # Errors
    /// The class does not exist: lists the names, or the nearest.
    pub fn label(&self, text: &str) -> anyhow::Result<usize> {
        let only = |is_meant: &dyn Fn(&String) -> bool| {
            let mut found = (0..self.names.len()).filter(|label| is_meant(&self.names[*label]));
            found.next().filter(|_| found.next().is_none())
        };
        let number = text.parse::<usize>().ok();
        let is_number = |name: &String| name.parse::<usize>().is_ok();
        let by_name = self
            .names
            .iter()
            .position(|name| name == text)
            .or_else(|| only(&|name| name.to_lowercase() == text.to_lowercase()))
            .or_else(|| only(&|name| number.is_some() && name.parse().ok() == number));
        let by_number = || number.filter(|number| *number < self.count && !self.names.iter().any(is_number));
        match by_name.or_else(by_number) {
            Some(label) => Ok(label),
            None => bail!("the class {text} does not exist: {}", self.advice(text)),
        }
    }

    fn advice(&self, text: &str) -> String {
        if self.count == 0 {
            return "this model was trained without classes".to_owned();
        }
        if self.are_their_numbers() {
            return format!("this model has the classes 0 to {}", self.count - 1);
        }
        if self.count <= LISTED {
            return format!("this model has the classes {}", self.names.join(", "));
        }
        let alike = |name: &&String| strsim::jaro_winkler(&name.to_lowercase(), &text.to_lowercase());
        let nearest = self.names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).map_or("", String::as_str);
        format!(
            "did you mean `{nearest}`? This model has {} classes, from {} to {}",
            self.count,
            self.names[0],
            self.name(self.count - 1)
        )
    }

    /// The name of a class; its number where it has none.
    pub fn name(&self, label: usize) -> String {
        self.names.get(label).cloned().unwrap_or_else(|| label.to_string())
    }

    /// The names of all classes.
    pub fn all(&self) -> Vec<String> {
        (0..self.count).map(|label| self.name(label)).collect()
    }

    /// Whether classes have no other names than their numbers.
    pub fn are_their_numbers(&self) -> bool {
        self.names.iter().enumerate().all(|(label, name)| *name == label.to_string())
    }

    /// The name of a class in the name of a file: letters, digits, `-`, `_` and `.` inside; None where there is nothing else, and
    /// where classes are their numbers.
    pub fn in_file_name(&self, label: usize) -> Option<String> {
        if self.are_their_numbers() {
            return None;
        }
        let safe = |letter: char| if letter.is_alphanumeric() || "_.".contains(letter) { letter } else { '-' };
        let name: String = self.names.get(label)?.chars().map(safe).take(LETTERS).collect();
        let name = name.trim_matches(['-', '.']);
        (!name.is_empty()).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_class_is_a_name_in_any_case_or_a_number() {
        let animals = names(&["Ant", "bee", "BEE", "zebra fish"]);
        let classes = Classes::new(&animals, 4);
        let found = ["ant", "Ant", "bee", "BEE", "Zebra Fish", "0", "3"].map(|text| classes.label(text).ok());
        assert_eq!(found, [0, 0, 1, 2, 3, 0, 3].map(Some));
        // of two names in other letter cases, neither
        assert!(classes.label("Bee").is_err());
        let error = classes.label("4").unwrap_err().to_string();
        assert_eq!(error, "the class 4 does not exist: this model has the classes Ant, bee, BEE, zebra fish");
    }

    #[test]
    fn a_number_is_a_name_where_names_are_numbers() {
        let numbered = names(&["1", "4", "07", "x"]);
        let classes = Classes::new(&numbered, 4);
        assert_eq!(["1", "4", "07", "7", "x"].map(|text| classes.label(text).ok()), [0, 1, 2, 2, 3].map(Some));
        assert!(["0", "2", "3", "-1"].iter().all(|text| classes.label(text).is_err()));
    }

    #[test]
    fn classes_without_names_are_numbers() {
        let classes = Classes::new(&[], 10);
        assert_eq!(
            (classes.label("9").ok(), classes.name(9), classes.in_file_name(9)),
            (Some(9), "9".to_owned(), None)
        );
        let error = classes.label("bags").unwrap_err().to_string();
        assert_eq!(error, "the class bags does not exist: this model has the classes 0 to 9");
        let error = Classes::new(&[], 0).label("0").unwrap_err().to_string();
        assert_eq!(error, "the class 0 does not exist: this model was trained without classes");
    }

    #[test]
    fn of_many_names_the_nearest_is_proposed() {
        let many: Vec<String> = (0..99).map(|index| format!("kind{index}")).chain(["handbag".to_owned()]).collect();
        let error = Classes::new(&many, 100).label("Handbags").unwrap_err().to_string();
        assert_eq!(
            error,
            "the class Handbags does not exist: did you mean `handbag`? This model has 100 classes, from kind0 to handbag"
        );
    }

    #[test]
    fn names_of_files_are_safe() {
        let strange = names(&["../a b", "Äpfel", "a\0b:c", "...", &"x".repeat(99)]);
        let classes = Classes::new(&strange, 5);
        let files: Vec<Option<String>> = (0..5).map(|label| classes.in_file_name(label)).collect();
        let expected =
            [Some("a-b".to_owned()), Some("Äpfel".to_owned()), Some("a-b-c".to_owned()), None, Some("x".repeat(40))];
        assert_eq!(files, expected);
    }
}
