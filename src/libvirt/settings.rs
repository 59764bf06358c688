//! The format of libvirt's own configuration files (src/util/virconf.c of its source): `key = value` with
//! strings, numbers and lists, and `#`. Of a key that stands there twice the first counts.

/// What a file sets, in its order.
#[derive(Debug)]
pub(super) struct Settings(Vec<(String, Value)>);

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// As it is written.
    Number(String),
    List(Vec<Self>),
}

impl Settings {
    /// Understands a text; of what libvirt would not take, the number of the line is told, and nothing
    /// of its content: it may be a password.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut rest = Rest(text);
        let wrong = |rest: &Rest<'_>| {
            let read = text.len() - rest.0.len();
            text.get(..read).unwrap_or(text).matches('\n').count() + 1
        };
        let mut found = Vec::new();
        loop {
            rest.skip(char::is_whitespace);
            if rest.0.is_empty() {
                return Ok(Self(found));
            }
            if rest.peek() != Some('#') {
                let setting = rest.setting().ok_or_else(|| wrong(&rest))?;
                found.push(setting);
                rest.skip(is_blank);
            }
            if rest.peek() == Some('#') {
                rest.skip(|one| one != '\n');
            }
        }
    }

    /// The first of that key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let mut all = self.0.iter();
        all.find_map(|(one, value)| (one == key).then_some(value))
    }
}

fn is_blank(one: char) -> bool {
    matches!(one, ' ' | '\t')
}

/// What has not been read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    fn skip(&mut self, which: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(which);
    }

    fn take(&mut self, which: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|one| !which(one)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn eat(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn setting(&mut self) -> Option<(String, Value)> {
        self.peek().filter(char::is_ascii_alphabetic)?;
        let key = self.take(|one| one.is_ascii_alphanumeric() || one == '_');
        self.skip(is_blank);
        self.eat("=")?;
        self.skip(is_blank);
        Some((key.to_owned(), self.value()?))
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            '"' | '\'' => self.text().map(Value::Text),
            '[' => self.list().map(Value::List),
            '0'..='9' | '+' | '-' => {
                let sign = self.take(|one| matches!(one, '+' | '-'));
                let digits = self.take(|one| one.is_ascii_digit());
                (sign.len() < 2 && !digits.is_empty())
                    .then(|| Value::Number(format!("{sign}{digits}")))
            }
            _ => None,
        }
    }

    /// Nothing is escaped; only three quotes hold a line's end.
    fn text(&mut self) -> Option<String> {
        let (quote, holds_lines) = match self.0 {
            three if three.starts_with("\"\"\"") => ("\"\"\"", true),
            one if one.starts_with('"') => ("\"", false),
            _ => ("'", false),
        };
        let inner = self.0.strip_prefix(quote)?;
        let (text, rest) = inner.split_once(quote)?;
        if !holds_lines && text.contains(['\n', '\r']) {
            return None;
        }
        self.0 = rest;
        Some(text.to_owned())
    }

    fn list(&mut self) -> Option<Vec<Value>> {
        let mut found = Vec::new();
        self.eat("[")?;
        loop {
            self.skip(char::is_whitespace);
            if self.eat("]").is_some() {
                return Some(found);
            }
            found.push(self.value()?);
            self.skip(char::is_whitespace);
            if self.peek()? != ']' {
                self.eat(",")?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn values_are_read_as_libvirt_reads_them() {
        let written = "# a comment = 1\n\n  user = \"one\"   # \"two\"\nuser = \"second\"\n\
                       path=\"C:\\dir\\\"\nsingle = 'a \"b\" # c'\nthree = \"\"\"a\n\"b\"\"\"\"\"\n\
                       zero = 0\nminus = -12\nempty = [ ]\n\
                       acl = [\n  \"/dev/null\", 'x',\n  3,\n]\nlast = \"no end of line\"";
        // Three quotes end at the first three.
        let written = written.replace("\"b\"\"\"\"\"", "\"b\"\" \"\"\"");
        let read = Settings::parse(&written).unwrap();
        for (key, value) in [
            ("user", text("one")),
            ("path", text("C:\\dir\\")),
            ("single", text("a \"b\" # c")),
            ("three", text("a\n\"b\"\" ")),
            ("zero", Value::Number("0".into())),
            ("minus", Value::Number("-12".into())),
            ("empty", Value::List(Vec::new())),
            (
                "acl",
                Value::List(vec![
                    text("/dev/null"),
                    text("x"),
                    Value::Number("3".into()),
                ]),
            ),
            ("last", text("no end of line")),
        ] {
            assert_eq!(read.get(key), Some(&value), "{key}");
        }
        assert_eq!(read.get("a"), None);
    }

    #[test]
    fn what_libvirt_does_not_take_is_told_by_its_line() {
        for (written, line) in [
            ("a = 1\n= 1\n", 2),
            ("a\n", 1),
            ("a =\n", 1),
            ("\n\na = \"no end\nb = 1\n", 3),
            ("a = 'no end\nb = 'x'\n", 1),
            ("a = yes\n", 1),
            ("a = [ \"x\" \"y\" ]\n", 1),
            ("a = [ 1", 1),
            ("a = -\n", 1),
            ("a.b = 1\n", 1),
        ] {
            assert_eq!(Settings::parse(written).unwrap_err(), line, "{written:?}");
        }
    }
}
