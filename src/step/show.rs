//! What is put on the screen, and in which colour.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use rustyline::ExternalPrinter;

/// Where lines go: above the prompt while one is being typed, or just out.
pub(super) enum Printer {
    Above(Box<dyn ExternalPrinter + Send>),
    Out,
}

/// The screen. Lines of several threads do not mix.
pub(super) struct Screen {
    printer: Mutex<Printer>,
    colours: bool,
}

/// How a word is marked.
#[derive(Clone, Copy)]
pub(super) enum Colour {
    Good,
    Bad,
    Head,
}

impl Screen {
    pub(super) fn new(printer: Printer) -> Self {
        // no-color.org: set and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            printer: Mutex::new(printer),
            colours: std::io::stdout().is_terminal() && !unwanted,
        }
    }

    /// Puts out a text; a newline is added. Nothing in it may come from a file name unescaped.
    pub(super) fn say(&self, text: &str) {
        let mut printer = self.printer.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{text}\n");
        // Whoever reads has gone: there is nobody to tell.
        let _gone = match &mut *printer {
            Printer::Above(printer) => printer.print(line).is_ok(),
            Printer::Out => {
                let mut out = std::io::stdout().lock();
                out.write_all(line.as_bytes())
                    .and_then(|()| out.flush())
                    .is_ok()
            }
        };
    }

    /// A text in a colour, if there are colours.
    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => "32",
            Colour::Bad => "31",
            Colour::Head => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A verdict in the colour of what it comes to.
    pub(super) fn verdict(&self, verdict: &str) -> String {
        let colour = if verdict.starts_with("deny") || verdict.starts_with("would") {
            Colour::Bad
        } else {
            Colour::Good
        };
        self.paint(colour, verdict)
    }
}
