//! Formulas as the report prints them: parsed from text, evaluated over named numbers.
//!
//! What a reader sees is what was computed, so that the two cannot part. `+ - * /`, brackets, numbers, names,
//! and a few functions; a name is letters, digits, `_` and `.`. Deliberately absent: assignment, strings, unary minus.
use std::iter::Peekable;
use std::str::CharIndices;

/// A parsed formula.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Formula {
    Number(f64),
    Name(String),
    Binary(Box<Formula>, char, Box<Formula>),
    Call(Function, Vec<Formula>),
}

/// What a formula may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Min,
    Max,
    /// Up to a whole number: a part of an instance or of a billing unit is paid as a whole one.
    Ceil,
    Floor,
    /// `if_at_most(x, limit, then, else)`.
    IfAtMost,
}

const FUNCTIONS: &[(&str, Function, usize)] = &[
    ("min", Function::Min, 2),
    ("max", Function::Max, 2),
    ("ceil", Function::Ceil, 1),
    ("floor", Function::Floor, 1),
    ("if_at_most", Function::IfAtMost, 4),
];

/// Counts are rounded up only above this, for `0.1 * 30` is a little more than 3.
const ROUNDING: f64 = 1e-9;

impl Formula {
    /// Parses a text; what is wrong with it, where it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, letters: text.char_indices().peekable() };
        let formula = parser.sum()?;
        match parser.next_letter() {
            None => Ok(formula),
            Some((place, letter)) => Err(format!("{letter} at {place} of {text:?} is not expected")),
        }
    }

    /// Its value; the name that has none, where there is such.
    pub(super) fn value(&self, of: &impl Fn(&str) -> Option<f64>) -> Result<f64, String> {
        Ok(match self {
            Self::Number(number) => *number,
            Self::Name(name) => of(name).ok_or_else(|| name.clone())?,
            Self::Binary(left, operator, right) => {
                let (left, right) = (left.value(of)?, right.value(of)?);
                match operator {
                    '+' => left + right,
                    '-' => left - right,
                    '*' => left * right,
                    _ => left / right,
                }
            }
            Self::Call(function, arguments) => {
                let values: Result<Vec<f64>, String> =
                    arguments.iter().map(|argument| argument.value(of)).collect();
                match (function, values?.as_slice()) {
                    (Function::Min, [one, other]) => one.min(*other),
                    (Function::Max, [one, other]) => one.max(*other),
                    (Function::Ceil, [number]) => (number - ROUNDING * number.abs()).ceil(),
                    (Function::Floor, [number]) => (number + ROUNDING * number.abs()).floor(),
                    (Function::IfAtMost, [number, limit, then, otherwise]) => {
                        if number <= limit {
                            *then
                        } else {
                            *otherwise
                        }
                    }
                    // the parser counts arguments
                    _ => f64::NAN,
                }
            }
        })
    }

    /// Every name in it, in the order of the text.
    pub(super) fn names<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::Number(_) => {}
            Self::Name(name) => found.push(name),
            Self::Binary(left, _, right) => {
                left.names(found);
                right.names(found);
            }
            Self::Call(_, arguments) => arguments.iter().for_each(|argument| argument.names(found)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    letters: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<Formula, String> {
        let mut left = self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            left = Formula::Binary(Box::new(left), operator, Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Formula, String> {
        let mut left = self.factor()?;
        while let Some(operator) = self.take(&['*', '/']) {
            left = Formula::Binary(Box::new(left), operator, Box::new(self.factor()?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Formula, String> {
        if self.take(&['(']).is_some() {
            let inner = self.sum()?;
            return self.expect(')').map(|()| inner);
        }
        let word = self.word();
        if word.is_empty() {
            return Err(format!("{:?} ends where a number or a name is expected", self.text));
        }
        if word.starts_with(|letter: char| letter.is_ascii_digit()) {
            return word.parse().map(Formula::Number).map_err(|_| format!("{word} is not a number"));
        }
        if self.take(&['(']).is_none() {
            return Ok(Formula::Name(word));
        }
        let Some((_, function, count)) = FUNCTIONS.iter().find(|(name, ..)| *name == word) else {
            return Err(format!("{word} is not a function"));
        };
        let mut arguments = vec![self.sum()?];
        while self.take(&[',']).is_some() {
            arguments.push(self.sum()?);
        }
        self.expect(')')?;
        match arguments.len() == *count {
            true => Ok(Formula::Call(*function, arguments)),
            false => Err(format!("{word} takes {count} values, not {}", arguments.len())),
        }
    }

    fn word(&mut self) -> String {
        self.skip_blanks();
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.';
        let mut word = String::new();
        while let Some((_, letter)) = self.letters.next_if(|(_, letter)| is_part(*letter)) {
            word.push(letter);
        }
        word
    }

    fn take(&mut self, wanted: &[char]) -> Option<char> {
        self.skip_blanks();
        self.letters.next_if(|(_, letter)| wanted.contains(letter)).map(|(_, letter)| letter)
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        self.take(&[wanted]).map(drop).ok_or_else(|| format!("{:?} lacks a {wanted}", self.text))
    }

    fn next_letter(&mut self) -> Option<(usize, char)> {
        self.skip_blanks();
        self.letters.next()
    }

    fn skip_blanks(&mut self) {
        while self.letters.next_if(|(_, letter)| letter.is_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<f64, String> {
        let of = |name: &str| match name {
            "price.a_1" => Some(5.0),
            "run.1_x" => Some(0.5),
            _ => None,
        };
        Formula::parse(text)?.value(&of)
    }

    #[test]
    fn operators_bind_as_in_arithmetic_and_from_left_to_right() {
        for (text, expected) in [
            ("2 + 3 * 4", 14.0),
            ("(2 + 3) * 4", 20.0),
            ("20 - 5 - 3", 12.0),
            ("64 / 4 / 2", 8.0),
            ("1e6 / 65536", 15.2587890625),
            ("price.a_1 * run.1_x", 2.5),
            ("max(1, min(7, price.a_1))", 5.0),
            ("ceil(15.01) + floor(2.9)", 18.0),
            ("ceil(0.1 * 30)", 3.0),
            ("if_at_most(5, price.a_1, 1, 2)", 1.0),
            ("if_at_most(6, price.a_1, 1, 2)", 2.0),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_formula_is_named() {
        for text in ["", "1 +", "(1", "1 2", "sqrt(4)", "min(1)", "1.2.3", "2 $ 3"] {
            assert!(value(text).is_err(), "{text}");
        }
        assert_eq!(value("1 + missing"), Err("missing".to_owned()));
    }
}
