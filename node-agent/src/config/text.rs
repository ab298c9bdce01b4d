//! Values that are text of a certain form: names and interfaces; and fractions.

use std::{fmt, str::FromStr, sync::Arc};

use toml::de::DeValue;

use super::{
    report::{Report, Span},
    table::{Value, article},
    value::read_text,
};

/// The name of something, fit for logs, metrics and file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Arc<str>);

/// The name of a network interface, as the kernel accepts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// A fraction of up to one half, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Jitter(pub u16);

/// The kernel's IFNAMSIZ without the closing zero.
const INTERFACE_NAME_MAX: usize = 15;

/// Longest name that is accepted.
const NAME_MAX: usize = 64;

impl Value for Name {
    fn kind() -> String {
        String::from("name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"web-1\"", |text| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            if text.is_empty() || text.len() > NAME_MAX {
                return Err(format!("a name has 1 to {NAME_MAX} characters"));
            }
            if !text.chars().all(legal) {
                return Err(format!(
                    "`{text}` is not a name: letters, digits and -_.: are allowed"
                ));
            }
            Ok(Self(text.into()))
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > INTERFACE_NAME_MAX {
            return Err(format!(
                "an interface name has 1 to {INTERFACE_NAME_MAX} characters, this has {}",
                text.len()
            ));
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
        if text.contains(illegal) || [".", ".."].contains(&text) {
            return Err(format!("`{text}` is not an interface name"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for InterfaceName {
    fn kind() -> String {
        String::from("interface name")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"eth0\"", str::parse)
    }
}

impl Value for Jitter {
    fn kind() -> String {
        String::from("0 to 0.5")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        let fraction: Option<f64> = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => None,
        };
        let permille = fraction
            .filter(|fraction| (0.0..=0.5).contains(fraction))
            .map(|fraction| (fraction * 1000.0).round() as u16);
        if permille.is_none() {
            let title = match fraction {
                Some(fraction) => format!("{fraction} is out of range"),
                None => format!("expected a fraction, found {}", article(value)),
            };
            report
                .error(span, title)
                .help("a fraction from 0 to 0.5, for example 0.1");
        }
        permille.map(Self)
    }
}
